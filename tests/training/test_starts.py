"""What keeps a training from starting: sentences instead of tracebacks, folders and checkpoints of others."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.storage.files import other_owner
from fairseq_resynth.tasks import trainer as ours
from fairseq_resynth.tasks.validation import check_best_metric


@pytest.fixture
def trainer(tmp_path):
    checkpoint = SimpleNamespace(
        save_dir=str(tmp_path), restore_file="checkpoint_last.pt", no_save=False
    )
    cfg = SimpleNamespace(checkpoint=checkpoint, common=SimpleNamespace(cpu=True))
    return SimpleNamespace(
        cfg=cfg, is_data_parallel_master=True, cuda=False, tpu=False, task=SimpleNamespace()
    )


def test_only_one_training_writes_to_a_folder(trainer, tmp_path):
    command = (
        "from pathlib import Path; from fairseq_resynth.data.storage.files import other_owner; "
        f"print(other_owner(Path({str(tmp_path / '.training')!r})), flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"None\n"
    with pytest.raises(ValueError, match=f"process {other.pid} trains into {tmp_path}"):
        ours._check_start(trainer, "checkpoint_last.pt")
    trainer.is_data_parallel_master = False  # the other ranks write nothing
    ours._check_start(trainer, "checkpoint_last.pt")
    other.communicate(b"\n")
    trainer.is_data_parallel_master = True
    for _ in range(2):
        ours._check_start(trainer, "checkpoint_last.pt")
    owner = tmp_path / ".training"
    place, process, _ = owner.read_text().split()
    owner.write_text(f"{place} {process} 1")  # a process that had the same id before
    assert other_owner(owner) is None


def test_a_checkpoint_to_start_from_exists(trainer, tmp_path):
    trainer.cfg.checkpoint.restore_file = str(tmp_path / "gone.pt")
    with pytest.raises(ValueError, match="--restore-file .*gone.pt does not exist"):
        ours._check_start(trainer, trainer.cfg.checkpoint.restore_file)


def test_a_checkpoint_of_other_streams_or_sizes_is_named(trainer, tmp_path):
    path = tmp_path / "checkpoint_last.pt"
    torch.save({"task_state": {"streams": {"num_units": 10}}}, path)

    def failure():
        try:
            try:
                torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(2, 4).state_dict())
            except RuntimeError:
                raise Exception("please ensure that the architectures match.")  # noqa: B904
        except Exception as error:
            return ours._misfit(trainer, str(path), error)

    assert f"{path} has other weights than this model (size mismatch for weight" in str(failure())

    def check_streams(streams):
        raise ValueError(f"the checkpoint has {streams['num_units']} units")

    trainer.task.check_streams = check_streams
    assert str(failure()) == "the checkpoint has 10 units"


def test_mistakes_of_a_user_end_without_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    ours.report_briefly()

    def reported(function, *arguments):
        try:
            function(*arguments)
        except Exception:
            sys.excepthook(*sys.exc_info())
        return capsys.readouterr().err

    missing = reported(read_manifest, tmp_path / "train.tsv")
    assert (
        missing == f"error: {tmp_path}/train.tsv does not exist. Make it with `resynth manifest`.\n"
    )
    assert "Traceback" in reported(int, "a")  # not a sentence of ours
    assert "Traceback" in reported(torch.zeros(2).reshape, 3)


def test_the_metric_of_the_best_checkpoint_is_measured():
    check_best_metric("mel", False, 0)
    with pytest.raises(ValueError, match="--best-checkpoint-metric accuracy is not measured"):
        check_best_metric("accuracy", True, 5)
