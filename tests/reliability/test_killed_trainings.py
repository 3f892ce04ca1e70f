"""Both trainings are killed at chosen and at random moments; the same command ends with the checkpoint of a
training that nothing interrupted."""

import re
import shutil

import numpy as np
import pytest
import torch
from ended_commands import KILLED, KILLS, Commands
from small_corpus import assert_same, f0_arguments, train_arguments, write_f0_data

# Six updates in three epochs; a checkpoint after each update and epoch, of which the older are removed
LENGTHS = {"train": [16000, 17000, 18000], "valid": [9000]}
SAVING = "--max-update 6 --save-interval-updates 1 --keep-interval-updates 2 --keep-last-epochs 2".split()
PARTS = ("model", "criterion", "last_optimizer_state", "task_state")


class Training:
    """A command that trains in `folder`, and what its checkpoints hold if nothing interrupts it."""

    def __init__(self, name, root):
        make = f0_arguments if name == "f0 quantizer" else train_arguments
        data = write_f0_data(root / "data", LENGTHS)
        self.name, self.folder = name, root / "work" / "out"
        self.folder.parent.mkdir()
        self.words = ["fairseq-train", *make(data, self.folder, *SAVING)]
        self.run = Commands(self.folder.parent, training=True)

    def measure(self):
        self.whole = self.run(*self.words)
        assert self.whole.status == 0, self.whole.err
        self.result, self.files = self.last(), self.names()
        sizes = {path.stat().st_size for path in self.folder.iterdir()}
        self.sizes = sorted(size * share // 4 for size in sizes for share in (1, 2, 3))

    def names(self):
        return sorted(path.name for path in self.folder.rglob("*"))

    def last(self):
        state = torch.load(self.folder / "checkpoint_last.pt", weights_only=True)
        updates = state["optimizer_history"][-1]["num_updates"]  # which has a line for each start
        return {"updates": updates, **{part: state[part] for part in PARTS}}

    def clear(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, **how):
        ended = self.run(*self.words, **how)
        assert ended.status in (-9, -25, 0), f"{ended.status} {ended.err}"
        KILLED[self.name, *how] += ended.status < 0
        return ended.status < 0

    def check(self):
        """A kill may leave more of the older checkpoints, and nothing else."""
        more = [name for name in self.names() if name not in self.files]
        assert set(self.files) <= set(self.names())
        assert all(re.fullmatch(r"checkpoint(_\d+)?_?\d+\.pt", name) for name in more), more
        assert_same(self.result, self.last())

    def check_completed(self):
        done = self.run(*self.words)
        assert done.status == 0, done.err
        self.check()
        return done


@pytest.fixture(scope="module", params=["unit vocoder", "f0 quantizer"])
def training(request, tmp_path_factory):
    made = Training(request.param, tmp_path_factory.mktemp("training"))
    with made.run:
        made.measure()
        yield made


@pytest.mark.slow
def test_a_training_is_killed_before_every_change_of_the_file_system(training):
    for change in range(1, training.whole.changes + 1):
        training.clear()
        training.kill(change=change)
        training.check_completed()


@pytest.mark.slow
def test_a_training_is_killed_in_the_middle_of_a_write(training):
    for size in training.sizes:
        training.clear()
        training.kill(size=size)
        training.check_completed()


@pytest.mark.slow
def test_a_training_is_killed_at_random_moments(training):
    """`kill -9` at `KILLS` moments: again and again until a run has ended, then from the beginning."""
    moments, kills = np.random.default_rng(5), 0
    training.clear()
    while kills < KILLS:
        if training.kill(seconds=moments.uniform() * training.whole.seconds):
            kills += 1
        else:
            training.check()
            training.clear()
    training.check_completed()


@pytest.mark.slow
def test_a_checkpoint_is_cut_short_after_a_kill(training):
    """It is named, and the training goes on from the checkpoint before it."""
    moments, cut = np.random.default_rng(6), 0
    last = training.folder / "checkpoint_last.pt"
    while cut < 10:
        training.clear()
        training.kill(seconds=moments.uniform(0.3, 1) * training.whole.seconds)
        others = [path for path in training.folder.glob("checkpoint*.pt") if path != last]
        if not last.is_file() or not others:
            continue
        cut += 1
        content = last.read_bytes()
        last.write_bytes(content[: int(moments.uniform() * len(content))])
        done = training.check_completed()
        assert f"{last} is" in done.err + done.out and "training goes on" in done.err + done.out
