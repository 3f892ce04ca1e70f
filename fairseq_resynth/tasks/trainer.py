"""What fairseq's trainer does otherwise for our tasks: damaged checkpoints, trainings that have ended,
gradients that are not finite, and how errors are reported.

fairseq gives a task no say in these, so importing this module replaces three of its functions.
"""

import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Optional, Tuple

import torch
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer
from torch.multiprocessing import ProcessRaisedException

from fairseq_resynth.data.datasets.workers import LoadingError
from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.data.storage.files import other_owner
from fairseq_resynth.tasks.non_finite import NonFiniteLossError
from fairseq_resynth.tasks.utterances import UtteranceTask

logger = logging.getLogger(__name__)
_load, _clip = Trainer.load_checkpoint, Trainer.clip_grad_norm
PACKAGE = Path(__file__).resolve().parents[1]
OWN_ERRORS = ("ValueError", "FileNotFoundError", "ModuleNotFoundError")
OWNER = ".training"  # names the process that trains into a folder
# checkpoint12.pt of an epoch, checkpoint_12_3400.pt inside one, checkpoint_best.pt, checkpoint.best_loss_1.pt
NAMES = r"checkpoint(\d+|_\d+_\d+|_best|\.best_.+)"


class DamagedCheckpointError(ValueError):
    """A checkpoint is cut short or empty, and no other one can take its place."""


def _load_and_stop(trainer: Trainer, filename: str, *args, **kwargs) -> Any:
    """As `_load_or_earlier`, and ends a training that has all its updates, as after a kill behind the last
    checkpoint: fairseq would look at --max-update only after one more."""
    state = _load_or_earlier(trainer, filename, *args, **kwargs)
    updates, most = trainer.get_num_updates(), trainer.cfg.optimization.max_update
    if isinstance(trainer.task, UtteranceTask) and 0 < most <= updates:
        logger.info("the training has %d of --max-update %d updates: nothing to do", updates, most)
        trainer.cfg.optimization.max_epoch = -1  # so that fairseq begins no epoch
    return state


def _load_or_earlier(trainer: Trainer, filename: str, *args, **kwargs) -> Any:
    """fairseq's `Trainer.load_checkpoint`, which replaces a damaged last checkpoint by the newest other one.

    Raises DamagedCheckpointError if there is none, or if another file than checkpoint_last.pt is damaged, and
    ValueError if the training cannot start, or the checkpoint does not fit it.
    """
    if not isinstance(trainer.task, UtteranceTask):
        return _load(trainer, filename, *args, **kwargs)
    _check_start(trainer, filename)
    try:
        return _load(trainer, filename, *args, **kwargs)
    except Exception as error:
        reason = _damage(Path(filename))
        if reason is None:
            raise _misfit(trainer, filename, error) from error
    folder, suffix = Path(trainer.cfg.checkpoint.save_dir), trainer.checkpoint_suffix
    if Path(filename) != folder / f"checkpoint_last{suffix}.pt":
        raise DamagedCheckpointError(f"{reason}; copy or download it again.")
    found = _newest(folder, suffix)
    if found is None:
        raise DamagedCheckpointError(
            f"{reason}, and {folder} has no other checkpoint that can be loaded; delete the file, or name "
            "another --save-dir, to train from the beginning."
        )
    updates, path = found
    if trainer.is_data_parallel_master:
        message = "%s; training goes on from the checkpoint before it, %s (%d updates)"
        logger.warning(message, reason, path, updates)
    state = _load(trainer, str(path), *args, **kwargs)
    if trainer.should_save_checkpoint_on_current_rank and not trainer.cfg.checkpoint.no_save:
        _copy(str(path), filename)  # a training that has all its updates saves no other
    return state


def _check_start(trainer: Trainer, filename: str) -> None:
    """Raises ValueError if the checkpoint of --restore-file does not exist, for which fairseq would train
    from the beginning, or if another training writes to the folder."""
    settings = trainer.cfg.checkpoint
    if settings.restore_file != "checkpoint_last.pt" and not PathManager.exists(filename):
        raise ValueError(f"--restore-file {filename} does not exist.")
    if not trainer.is_data_parallel_master:
        return
    if not (trainer.cuda or trainer.cfg.common.cpu or trainer.tpu):
        logger.warning(
            "torch finds no GPU here: training on the CPU (--cpu says that this is meant)"
        )
    if not settings.no_save and (process := other_owner(Path(settings.save_dir) / OWNER)):
        raise ValueError(
            f"process {process} trains into {settings.save_dir}: wait until it has ended, or name another "
            "--save-dir."
        )


def _misfit(trainer: Trainer, filename: str, error: Exception) -> Exception:
    """Why a readable checkpoint cannot be loaded: other streams, other sizes, or fairseq's own error."""
    inner: Optional[BaseException] = error
    while inner is not None:
        if is_own(inner):
            return ValueError(str(inner))
        reason, inner = inner, inner.__context__
    state = load_checkpoint(filename, "a checkpoint of fairseq")
    check = getattr(trainer.task, "check_streams", None)
    if check and (streams := (state.get("task_state") or {}).get("streams")):
        try:
            check(streams)
        except ValueError as difference:
            return difference
    if not isinstance(reason, RuntimeError):
        return error
    lines = [line.strip() for line in str(reason).splitlines()]
    return ValueError(
        f"{filename} has other weights than this model ({lines[min(1, len(lines) - 1)].rstrip('.')}): give "
        "the settings that it was trained with, or another --save-dir."
    )


def is_own(error: BaseException) -> bool:
    """Whether an error is one of the package's own sentences about what a user gave."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = Path(trace.tb_frame.f_code.co_filename) if trace else Path()
    return type(error).__name__ in OWN_ERRORS and PACKAGE in raised_in.parents


def _damage(path: Path) -> Optional[str]:
    """What is wrong with a file that is not a readable checkpoint; None if it is one."""
    size = path.stat().st_size
    if size == 0:
        return f"{path} is empty (0 bytes)"
    try:
        load_checkpoint(path, "a checkpoint of fairseq")
    except ValueError as error:
        return f"{str(error).rstrip('.')} (it has {size} bytes and may have been cut short)"
    return None


def _newest(folder: Path, suffix: str) -> Optional[Tuple[int, Path]]:
    """The checkpoint of a folder that can be loaded and has the most updates: (updates, path)."""
    found = []
    for path in folder.glob(f"checkpoint*{suffix}.pt"):
        if not re.fullmatch(NAMES + re.escape(f"{suffix}.pt"), path.name):
            continue
        try:
            # Mapped into memory, so that the weights of all of them are not read.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(state["optimizer_history"][-1]["num_updates"]), path))
        except Exception as error:  # a damaged file can make torch fail in any way
            logger.warning("%s cannot be loaded either: %s", path, type(error).__name__)
    return max(found, default=None)


def _clip_finite(trainer: Trainer, clip_norm: float) -> torch.Tensor:
    """fairseq's `Trainer.clip_grad_norm`, which stops a training whose gradients are NaN or infinite.

    fairseq would save the weights as crash.pt, repeat the step and end with a traceback. The norm stays on
    the CPU: fairseq waits for it next in any case, and then need not wait again to log it.
    """
    norm = _clip(trainer, clip_norm)
    # --amp skips such an update by itself.
    if not isinstance(trainer.task, UtteranceTask) or trainer.cfg.common.amp:
        return norm
    norm = norm.cpu()
    if not torch.isfinite(norm):
        raise trainer.task.batches.error()
    return norm


def _copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
    """fairseq's `PathManager.copy` of a local file, which a reader never sees half written.

    fairseq copies checkpoint_best.pt and checkpoint_last.pt in place, and a kill would cut them short. The
    temporary name is that of fairseq's other files; the next copy overwrites what a kill has left of it.
    """
    if PathManager.path_requires_pathmanager(dst_path):
        return _copy_in_place(src_path, dst_path, overwrite=overwrite)
    shutil.copyfile(src_path, f"{dst_path}.tmp")
    os.replace(f"{dst_path}.tmp", dst_path)
    return True


_copy_in_place = PathManager.copy
Trainer.load_checkpoint = _load_and_stop
Trainer.clip_grad_norm = _clip_finite
PathManager.copy = staticmethod(_copy)


def report_briefly() -> None:
    """Makes an interruption, and the errors that say all that a user needs, end the program without a
    traceback, also where fairseq has started a process per GPU, and with hydra."""
    previous = sys.excepthook
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise hydra prints tracebacks itself
    errors = (LoadingError, NonFiniteLossError, DamagedCheckpointError)
    by_name = {f"{error.__module__}.{error.__qualname__}": error for error in errors}

    def report(kind, error, trace) -> None:
        message, own = str(error), is_own(error)
        if issubclass(kind, ProcessRaisedException):
            # its text ends with the traceback of the process
            name, _, rest = message.strip().rpartition("\n")[2].partition(": ")
            places = re.findall(r'^  File "(.+)", line', message, re.M)
            own = name in OWN_ERRORS and bool(places) and PACKAGE in Path(places[-1]).parents
            kind, message = by_name.get(name, kind), rest if own or name in by_name else message
        if issubclass(kind, KeyboardInterrupt):
            message = "Interrupted."
        elif own or issubclass(kind, errors):
            message = f"error: {message}"
        else:
            return previous(kind, error, trace)
        if not own and not issubclass(kind, DamagedCheckpointError):
            message += "\nThe same command resumes the training from its last checkpoint."
        sys.stderr.write(f"{message}\n")

    sys.excepthook = report
