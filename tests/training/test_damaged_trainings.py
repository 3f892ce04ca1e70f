"""Losses that become NaN, checkpoints that are cut short, and a kill while one is saved."""

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from small_corpus import (
    assert_same,
    f0_arguments,
    fairseq_train,
    train_arguments,
    write_data,
    write_f0_data,
)
from test_distributed import free_port

from fairseq_resynth.criterions.f0_vqvae import F0VqvaeCriterion
from fairseq_resynth.criterions.hifigan import HifiganCriterion
from fairseq_resynth.data.datasets.workers import describe_rows
from fairseq_resynth.tasks.non_finite import NonFiniteLossError
from fairseq_resynth.tasks.trainer import DamagedCheckpointError
from fairseq_resynth.tasks.unit_resynthesis import UnitResynthesisTask
from fairseq_resynth.tasks.utterances import UtteranceTask

# Four updates of three batches per epoch, with a checkpoint after each
QUICK = (
    "--max-update 4 --save-interval-updates 1 --no-epoch-checkpoints --disable-validation".split()
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lengths = {"train": [16000, 17000, 18000, 19000, 20000, 21000], "valid": [9000]}
    return write_f0_data(tmp_path_factory.mktemp("damaged") / "data", lengths)


def updates(path) -> int:
    state = torch.load(path, weights_only=True)
    return state["optimizer_history"][-1]["num_updates"]


def finite(path) -> bool:
    state = torch.load(path, weights_only=True)
    weights = [*state["model"].values(), *(state["criterion"] or {}).values()]
    return all(bool(w.isfinite().all()) for w in weights if torch.is_tensor(w))


def spoil_generator(patch):
    def mel_loss(self, real, fake, whole=HifiganCriterion.mel_loss):
        loss, terms = whole(self, real, fake)
        return loss * float("nan"), {"mel": terms["mel"] * float("nan")}

    patch.setattr(HifiganCriterion, "mel_loss", mel_loss)


def spoil_discriminators(patch):
    def shared_losses(self, real, fake, whole=HifiganCriterion.shared_losses):
        loss_d, loss_g, terms = whole(self, real, fake)
        return loss_d * float("inf"), loss_g, terms

    patch.setattr(HifiganCriterion, "shared_losses", shared_losses)


def spoil_quantizer(patch):
    def forward(self, model, sample, reduce=True, whole=F0VqvaeCriterion.forward):
        loss, size, logged = whole(self, model, sample, reduce)
        return loss * float("nan"), size, {**logged, "loss": loss.detach() * float("nan")}

    patch.setattr(F0VqvaeCriterion, "forward", forward)


CASES = {
    "generator": (train_arguments, [], spoil_generator, "mel is nan, loss is nan"),
    "discriminators": (
        train_arguments,
        ["--gan-update", "simultaneous"],
        spoil_discriminators,
        "loss_d is inf, gnorm_d is nan",
    ),
    "f0 quantizer": (f0_arguments, [], spoil_quantizer, "loss is nan"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_that_is_not_finite_stops_the_training(case, data, tmp_path, monkeypatch):
    """In the third of four updates, with a checkpoint after each; then the same command goes on."""
    make, extra, spoil, terms = CASES[case]
    folder, ids, step = tmp_path / "out", [], UtteranceTask.train_step

    def train_step(task, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if update_num == 2:
            ids[:] = sample["id"].tolist()
            spoil(monkeypatch)
        return step(task, sample, model, criterion, optimizer, update_num, ignore_grad)

    def train():
        return fairseq_train(*make(data, folder, *QUICK, *extra), check=False)

    with monkeypatch.context() as patch:
        patch.setattr(UtteranceTask, "train_step", train_step)
        failed = train()
    message = failed.stderr.strip().splitlines()[-1]
    assert failed.returncode == 1 and "NonFiniteLossError: update 3: " + terms in message
    for row in ids:
        assert f"item {row} ({data / 'train.tsv'}:{row + 2}, {data}/wav/train_{row}.wav)" in message
    assert "crash.pt" not in [path.name for path in folder.iterdir()]
    for path in folder.glob("*.pt"):
        assert updates(path) <= 2 and finite(path), path
    assert updates(folder / "checkpoint_last.pt") == 2
    if case == "generator":
        monkeypatch.undo()
        assert train().returncode == 0 and updates(folder / "checkpoint_last.pt") == 4


def test_a_validation_loss_that_is_not_finite_is_not_saved(data, tmp_path, monkeypatch):
    valid = UnitResynthesisTask.validate

    def validate(task, sample, model, criterion):
        loss, size, logged = valid(task, sample, model, criterion)
        return loss, size, {**logged, "loss": logged["loss"] * float("nan")}

    monkeypatch.setattr(UnitResynthesisTask, "validate", validate)
    arguments = train_arguments(data, tmp_path / "out", "--max-update", 2)
    with pytest.raises(
        NonFiniteLossError, match=r"validation after update 2: loss is nan .*valid_0"
    ):
        fairseq_train(*arguments)
    assert not list((tmp_path / "out").glob("*.pt"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A training of four updates with a checkpoint of each."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    fairseq_train(*train_arguments(data, folder, *QUICK))
    return folder


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(data, whole, tmp_path):
    """checkpoint_last.pt is empty and the next one is cut short; the result is that of no damage."""
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    names = sorted(path.name for path in folder.glob("checkpoint_*_*.pt"))
    assert names == ["checkpoint_1_1.pt", "checkpoint_1_2.pt", "checkpoint_2_4.pt"]
    (folder / "checkpoint_last.pt").write_bytes(b"")
    content = (folder / "checkpoint_2_4.pt").read_bytes()
    (folder / "checkpoint_2_4.pt").write_bytes(content[: len(content) // 2])
    done = fairseq_train(*train_arguments(data, folder, *QUICK))
    (line,) = [line for line in done.stdout.splitlines() if "training goes on" in line]
    assert line == (
        f"{folder}/checkpoint_last.pt is empty (0 bytes); training goes on from the checkpoint before it, "
        f"{folder}/checkpoint_1_2.pt (2 updates)"
    )
    one, two = (torch.load(f / "checkpoint_last.pt", weights_only=True) for f in (whole, folder))
    for part in ("model", "criterion", "last_optimizer_state"):
        assert_same(one[part], two[part], part)


def test_a_training_that_has_all_its_updates_makes_no_more(data, whole, tmp_path):
    """As after a kill behind its last checkpoint."""
    shutil.copytree(whole, tmp_path / "out")
    done = fairseq_train(*train_arguments(data, tmp_path / "out", *QUICK))
    assert "the training has 4 of --max-update 4 updates: nothing to do" in done.stdout
    for path in whole.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_damaged_last_checkpoint_of_a_training_that_has_all_its_updates(data, whole, tmp_path):
    """It is replaced by the other checkpoint of the same update, although nothing is trained."""
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    last = folder / "checkpoint_last.pt"
    last.write_bytes(last.read_bytes()[:5000])
    done = fairseq_train(*train_arguments(data, folder, *QUICK))
    assert f"{folder}/checkpoint_2_4.pt (4 updates)" in done.stdout
    for path in whole.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("restored", ["checkpoint_last.pt", "other.pt"])
def test_a_damaged_checkpoint_that_has_no_other_stops_the_training(
    restored, data, whole, tmp_path, capsys
):
    """Nothing is written over it; neither for a file that --restore-file names, which nothing replaces."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / restored).write_bytes((whole / "checkpoint_last.pt").read_bytes()[:5000])
    extra = []
    if restored == "other.pt":
        extra = ["--restore-file", folder / restored]
        shutil.copy(whole / "checkpoint_last.pt", folder / "checkpoint1.pt")
    with pytest.raises(DamagedCheckpointError) as caught:
        fairseq_train(*train_arguments(data, folder, *QUICK, *extra))
    assert str(caught.value).startswith(f"{folder / restored} is not readable as a checkpoint")
    assert "it has 5000 bytes" in str(caught.value)
    assert (folder / restored).stat().st_size == 5000
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert capsys.readouterr().err == f"error: {caught.value}\n"


class Killed(BaseException):
    """What ends a function as a kill would, half-way."""


@pytest.mark.parametrize("moment", ["write", "copy"])
def test_a_kill_while_saving_leaves_the_last_checkpoint(moment, tmp_path, monkeypatch):
    """fairseq makes checkpoint_last.pt by a write, or as a copy of another checkpoint."""
    other, last = tmp_path / "checkpoint1.pt", tmp_path / "checkpoint_last.pt"
    torch.save({"old": 1}, last)
    torch.save({"new": 2}, other)
    old, new = last.read_bytes(), other.read_bytes()

    def half(source, target, *rest):
        with contextlib.ExitStack() as stack:
            stream = target if moment == "write" else stack.enter_context(open(target, "wb"))
            stream.write(new[:100])
        raise Killed

    def save():
        if moment == "write":
            checkpoint_utils.torch_persistent_save({"new": 2}, str(last))
        else:
            assert PathManager.copy(str(other), str(last), overwrite=True)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("torch.save" if moment == "write" else "shutil.copyfile", half)
        save()
    assert last.read_bytes() == old
    save()
    assert torch.load(last, weights_only=True) == {"new": 2} and not list(tmp_path.glob("*.tmp"))


def test_all_items_of_a_batch_are_named():
    dataset = SimpleNamespace(describe=lambda row: f"item {row}")
    assert describe_rows(dataset, [3, 9, 4, 7, 1]) == "item 3, item 9, item 4 and 2 more (7, 1)"


@pytest.mark.slow
def test_kills_at_random_moments(data, tmp_path):
    """kill -9 while every update is saved: checkpoint_last.pt always loads, and never goes back."""
    folder, reached = tmp_path / "out", 0
    extra = ["--save-interval-updates", 1, "--keep-interval-updates", 2, "--max-update", 100_000]
    arguments = train_arguments(data, folder, *extra, "--disable-validation")
    command = [Path(sys.executable).with_name("fairseq-train"), *map(str, arguments)]
    moments = np.random.default_rng(1)
    for _ in range(4):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while f"@ {reached + 2} updates" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 1))
        process.kill()
        process.wait()
        now = updates(folder / "checkpoint_last.pt")
        assert now > reached
        reached = now


TWO_RANKS = """
import sys
from fairseq.distributed import utils
from fairseq_resynth.criterions.hifigan import HifiganCriterion
from fairseq_resynth.tasks.utterances import UtteranceTask
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli.train import main
step, mel = UtteranceTask.train_step, HifiganCriterion.mel_loss
spoils = []
def train_step(task, sample, model, criterion, optimizer, update_num, ignore_grad=False):
    if update_num == 1 and utils.get_data_parallel_rank() == 1:
        spoils.append(1)
    return step(task, sample, model, criterion, optimizer, update_num, ignore_grad)
def mel_loss(self, real, fake):
    loss, terms = mel(self, real, fake)
    return (loss * float("nan"), {"mel": terms["mel"] * float("nan")}) if spoils else (loss, terms)
UtteranceTask.train_step, HifiganCriterion.mel_loss = train_step, mel_loss
parsed = options.parse_args_and_arch(options.get_training_parser(), sys.argv[1:])
utils.call_main(convert_namespace_to_omegaconf(parsed), main)
"""


@pytest.mark.slow
def test_all_ranks_stop_at_the_same_update(tmp_path):
    """The second of two ranks gets NaN: both end with the message that names its items."""
    data = write_data(tmp_path / "data", {"train": [16000] * 8, "valid": [9000]})
    port, processes = free_port(), []
    for rank in range(2):
        distributed = [
            "--distributed-world-size", 2, "--distributed-rank", rank, "--distributed-no-spawn",
            "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp",
            "--distributed-init-method", f"tcp://127.0.0.1:{port}",
        ]  # fmt: skip
        arguments = train_arguments(data, tmp_path / "out", *QUICK, *distributed)
        command = [sys.executable, "-c", TWO_RANKS, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    messages = [process.communicate(timeout=300)[1] for process in processes]
    lines = []
    for process, message in zip(processes, messages, strict=True):
        assert process.returncode == 1 and "Traceback" not in message
        lines += [line for line in message.splitlines() if "error: " in line]
    # torch writes [rank0] before what a process of several prints at its end
    first, second = (line.partition("error: ")[2] for line in lines)
    assert first == second
    assert first.startswith("update 2: mel is nan, loss is nan in the batch of item ")
    assert updates(tmp_path / "out" / "checkpoint_last.pt") == 1
