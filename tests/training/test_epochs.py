"""Epochs without a seam: fairseq's batches from workers that stay, and what happens when loading fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fairseq.data.iterators import GroupedIterator
from fairseq.tasks import FairseqTask
from small_corpus import fairseq_train, train_arguments, write_data

from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.datasets.workers import LoadingError
from fairseq_resynth.data.streams import read_streams
from fairseq_resynth.tasks.unit_resynthesis import UnitResynthesisTask
from fairseq_resynth.tasks.utterances import PREEMPTION_SIGNALS, UtteranceTask

SEGMENT = 2560
ITEMS = 11


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lengths = {"train": [16000 + 1000 * n for n in range(ITEMS)], "valid": [16000, 20480, 9000]}
    return write_data(tmp_path_factory.mktemp("epochs") / "data", lengths)


@pytest.fixture(autouse=True)
def another_loader():
    """PyTorch sets its handler of SIGCHLD with the first DataLoader of a process, which need not be ours."""
    list(torch.utils.data.DataLoader([0], num_workers=1))


def unit_dataset(data, split="train"):
    segment_size = SEGMENT if split == "train" else 0
    return UnitDataset(data, split, read_streams(data), segment_size)


def epochs(task, data, last, state=None, stop_after=None, group=1, **settings):
    """Batches of the epochs up to `last`, as fairseq's trainer asks for them, and the iterator's state."""
    dataset = unit_dataset(data)
    # A thread of fairseq's that still reads when workers are forked could hold a lock in them.
    buffer = 3 if isinstance(task, UtteranceTask) and settings.get("num_workers") else 0
    settings = {"max_sentences": 2, "seed": 5, "data_buffer_size": buffer, **settings}
    epoch = state["epoch"] if state else 1
    iterator = task.get_batch_iterator(dataset=dataset, epoch=epoch, **settings)
    if state:
        iterator.load_state_dict(state)
    batches = []
    while iterator.next_epoch_idx <= last:
        running = GroupedIterator(iterator.next_epoch_itr(shuffle=iterator.epoch > 0), group)
        for chunk in running:
            batches.append((iterator.epoch, chunk))
            assert running.n * group >= iterator.iterations_in_epoch
            if len(batches) == stop_after:
                return batches, iterator.state_dict(), dataset
        epoch = iterator.next_epoch_idx
        iterator = task.get_batch_iterator(dataset=dataset, epoch=epoch, **settings)
    return batches, iterator.next_epoch_idx, dataset


def assert_equal(one, two):
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one:
            assert_equal(one[name], two[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for pair in zip(one, two, strict=True):
            assert_equal(*pair)
    elif torch.is_tensor(one):
        assert one.dtype == two.dtype and one.stride() == two.stride() and torch.equal(one, two)
    else:
        assert one == two


VARIANTS = {
    "plain": {},
    "first of two ranks": {"num_shards": 2, "shard_id": 0},
    "second of two ranks, whole batches": {
        **{"num_shards": 2, "shard_id": 1, "skip_remainder_batch": True}
    },
    "by length, in groups": {
        **{"max_sentences": None, "max_tokens": 20, "group": 2, "grouped_shuffling": True}
    },
}


@pytest.mark.parametrize("name,variant", VARIANTS.items())
def test_batches_are_fairseqs(data, name, variant):
    """Order and crops of three epochs, at once and resumed inside the second one, equal those of fairseq's
    own iterator for any number of workers."""
    expected, _, _ = epochs(FairseqTask(None), data, 3, **variant)
    halfway = len(expected) // 2
    _, state, _ = epochs(FairseqTask(None), data, 3, stop_after=halfway, **variant)
    assert state["epoch"] == 2 and state["iterations_in_epoch"]
    for workers in (0, 1, 4) if name == "plain" else (2,):
        settings = {"num_workers": workers, **variant}
        ours, following, _ = epochs(UtteranceTask(None), data, 3, **settings)
        assert following == 4
        assert_equal(ours, expected)
        first, saved, _ = epochs(UtteranceTask(None), data, 3, stop_after=halfway, **settings)
        assert saved == state
        rest, _, _ = epochs(UtteranceTask(None), data, 3, state=saved, **settings)
        assert_equal(first + rest, expected)


class StampedDataset(UnitDataset):
    """Batches that know who made them."""

    def collater(self, items):
        return {**super().collater(items), "process": {"id": os.getpid()}}


def test_workers_outlive_the_epochs(data):
    """The same processes for three epochs; the next epoch's first batches load during the last ones."""
    dataset = StampedDataset(data, "train", read_streams(data), SEGMENT)
    task, processes = UtteranceTask(None), []
    for epoch in (1, 2, 3):
        iterator = task.get_batch_iterator(
            dataset=dataset, epoch=epoch, max_sentences=1, num_workers=3, data_buffer_size=2
        )
        processes.append({batch["process"]["id"] for batch in iterator.next_epoch_itr()})
    workers = dataset.workers(3, iterator.ahead)
    assert processes == [set(workers.pids)] * 3 and len(processes[0]) == 3
    assert os.getpid() not in processes[0]
    assert [epoch for epoch, _ in (*workers._plan.loading, *workers._plan.coming)] == [4] * 5
    valid = StampedDataset(data, "valid", read_streams(data))
    validations = [
        {batch["process"]["id"] for batch in iterator.next_epoch_itr(shuffle=False)}
        for iterator in (
            task.get_batch_iterator(dataset=valid, max_sentences=1, num_workers=3) for _ in range(2)
        )
    ]
    workers = valid.workers(3, iterator.ahead)
    assert validations == [set(workers.pids)] * 2
    assert not workers._plan.loading and not workers._plan.coming
    # An iterator that is dropped halfway leaves nothing behind.
    next(iterator.next_epoch_itr())
    iterator = task.get_batch_iterator(dataset=dataset, epoch=9, max_sentences=2, num_workers=3)
    first = next(iterator.next_epoch_itr())
    dataset.set_epoch(9)
    assert_equal(first["target"], dataset.collater([dataset[i] for i in first["id"]])["target"])


def kinds_of_tensors():
    counts = torch.arange(24)
    return {
        "name": "any",
        "transposed": counts.reshape(2, 3, 4).float().transpose(1, 2),
        "nested": {"bits": counts > 7, "single": torch.tensor(3), "nothing": torch.zeros(0, 5)},
        "target": None,
        "half": counts.half()[5:9],
    }


class OddBatches(UnitDataset):
    """Batches with every kind of value, and with a tensor that has gaps."""

    def collater(self, items):
        return {**kinds_of_tensors(), "gaps": torch.arange(24).reshape(4, 6)[:, ::2]}


def test_batches_pass_unchanged(data):
    """Values, types and memory formats; the gaps between values do not pass."""
    dataset = OddBatches(data, "train", read_streams(data), SEGMENT)
    batch = dataset.workers(1, 1).batch([(1, [0])])
    assert torch.equal(batch.pop("gaps"), torch.arange(24).reshape(4, 6)[:, ::2])
    assert_equal(batch, kinds_of_tensors())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_with_their_dataset_and_not_by_ctrl_c(data):
    dataset = unit_dataset(data)
    workers = dataset.workers(2, 4)
    assert workers.batch([(1, [3]), (1, [4])])["id"].tolist() == [3]
    assert workers.batch([(1, [4])])["id"].tolist() == [4]
    pids = workers.pids
    assert len(pids) == 2 and min(pids) > 1
    # as a cluster sends to all processes
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        for pid in pids:
            os.kill(pid, number)
    assert workers.batch([(1, [0, 1]), (1, [2])])["id"].tolist() == [0, 1]
    assert workers.pids == pids and all(map(alive, pids))
    del workers, dataset
    assert not any(map(alive, pids))


def item_name(data, row):
    return f"item {row} ({data}/train.tsv:{row + 2}, {data}/wav/train_{row}.wav)"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named(tmp_path, workers):
    data = write_data(tmp_path / "data", {"train": [16000] * 5})
    dataset = unit_dataset(data)
    (data / "wav" / "train_4.wav").write_bytes(b"RIFF, but nothing else")
    settings = {"max_sentences": 1, "num_workers": workers, "data_buffer_size": 2}
    iterator = UtteranceTask(None).get_batch_iterator(dataset=dataset, **settings)
    with pytest.raises(LoadingError) as caught:
        list(iterator.next_epoch_itr())
    message = str(caught.value)
    assert message.startswith(f"{item_name(data, 4)} cannot be loaded: ValueError: ")
    assert "is not readable as audio" in message and "Traceback" not in message


class FailingDataset(UnitDataset):
    """Fails as `how` says when it makes row 3."""

    def __getitem__(self, index):
        if index == 3:
            getattr(self, self.how)()
        return super().__getitem__(index)

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self):
        os._exit(7)

    def blunder(self):
        raise KeyError("a blunder")


FAILURES = {
    "kill": "exited unexpectedly, while loading",
    "leave": "exited unexpectedly, while loading",
    "blunder": "cannot be loaded: KeyError: 'a blunder'\nTraceback",
}


@pytest.mark.parametrize("how,expected", FAILURES.items())
def test_a_failing_worker_names_its_item(data, how, expected):
    dataset = FailingDataset(data, "train", read_streams(data), SEGMENT)
    dataset.how = how
    workers, start = dataset.workers(2, 4), time.monotonic()
    with pytest.raises(LoadingError) as caught:
        workers.batch([(1, [1, 3]), (1, [2])])
    assert item_name(data, 3) in str(caught.value) and expected in str(caught.value)
    assert time.monotonic() - start < 15
    assert not any(map(alive, workers.pids))
    assert dataset.workers(2, 4).batch([(1, [1])])["id"].tolist() == [1]  # others are started


def test_a_worker_that_dies_while_it_waits_is_noticed(data):
    dataset = unit_dataset(data)
    workers = dataset.workers(2, 2)
    workers.batch([(1, [0]), (1, [1])])
    os.kill(workers.pids[0], signal.SIGKILL)  # the third batch is its turn
    workers.batch([(1, [1]), (1, [2])])
    message = "exited unexpectedly, while loading item 2 .* fewer --num-workers need less"
    with pytest.raises(LoadingError, match=message):
        workers.batch([(1, [2])])


def test_killed_training_resumes(data, tmp_path, monkeypatch):
    """A worker that was killed ends the training, and the same command continues it."""
    make, main, made = UnitDataset.__getitem__, os.getpid(), []

    def train(check=True):
        extra = [
            *("--max-update", 4, "--num-workers", 1, "--data-buffer-size", 0),
            *("--save-interval-updates", 1, "--disable-validation"),
        ]
        return fairseq_train(*train_arguments(data, tmp_path / "out", *extra), check=check)

    def fail(dataset, index):
        if os.getpid() != main:
            made.append(index)
            if len(made) == 7:  # in the fourth batch, which is loaded before the third update
                (tmp_path / "row").write_text(str(index))
                os.kill(os.getpid(), signal.SIGKILL)
        return make(dataset, index)

    monkeypatch.setattr(UnitDataset, "__getitem__", fail)
    failed = train(check=False)
    row = int((tmp_path / "row").read_text())
    assert failed.returncode and item_name(data, row) in failed.stderr
    monkeypatch.setattr(UnitDataset, "__getitem__", make)
    resumed = train()
    assert "No existing checkpoint" not in resumed.stdout
    state = torch.load(tmp_path / "out" / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_preempted_training_saves_and_resumes(data, tmp_path, monkeypatch, number):
    """A signal in the fourth update: it ends, a checkpoint is saved, and the process would end by the signal;
    the same command ends with the weights of a training without that."""
    update, at_exit = UnitResynthesisTask.update, []

    def train(folder):
        extra = ["--max-update", 6, "--save-interval", 1000]
        fairseq_train(*train_arguments(data, tmp_path / folder, *extra))
        return torch.load(tmp_path / folder / "checkpoint_last.pt", weights_only=True)

    def preempted(task, sample, model, criterion, optimizer, update_num, ignore_grad):
        if update_num == 3:
            os.kill(os.getpid(), number)
        return update(task, sample, model, criterion, optimizer, update_num, ignore_grad)

    before = [(each, signal.getsignal(each)) for each in PREEMPTION_SIGNALS]
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    try:
        whole = train("whole")
        monkeypatch.setattr(UnitResynthesisTask, "update", preempted)
        stopped = train("resumed")
        monkeypatch.setattr(UnitResynthesisTask, "update", update)
        resumed = train("resumed")
    finally:
        for each in before:
            signal.signal(*each)
    assert stopped["optimizer_history"][-1]["num_updates"] == 4
    assert at_exit[-1][1:] == (number,)
    assert resumed["optimizer_history"][-1]["num_updates"] == 6
    assert_equal(dict(resumed["model"]), dict(whole["model"]))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("end", ["interrupt", "preemption", "kill", "epoch limit", "corrupt file"])
def test_the_command_ends_without_a_traceback(tmp_path, workers, end):
    """fairseq-train itself: at Ctrl-C, killed, at its end, and when a file is corrupt."""
    data = write_data(tmp_path / "data", {"train": [16000] * 6, "valid": [16000] * 2})
    if end == "corrupt file":
        (data / "wav" / "train_5.wav").write_bytes(b"noise")
    limit = 2 if end == "epoch limit" else 10_000
    arguments = train_arguments(data, tmp_path / "out", "--num-workers", workers)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("fairseq-train"), *arguments, "--max-epoch", str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    signals = {"interrupt": signal.SIGINT, "preemption": signal.SIGTERM, "kill": signal.SIGKILL}
    if end in signals:
        while not (tmp_path / "out" / "checkpoint2.pt").exists():
            assert process.poll() is None
            time.sleep(0.1)
        if end == "kill":
            process.kill()
        else:
            os.killpg(process.pid, signals[end])
        start = time.monotonic()
    output, _ = process.communicate(timeout=300)
    assert "Traceback" not in output and "Exception" not in output
    if end == "kill":
        assert process.returncode == -signal.SIGKILL
    elif end == "interrupt":
        assert time.monotonic() - start < 10
        assert process.returncode == -signal.SIGINT
        assert "Interrupted.\nThe same command resumes" in output
    elif end == "preemption":
        assert process.returncode == -signal.SIGTERM and "done training" in output
    elif end == "epoch limit":
        assert process.returncode == 0 and "done training" in output
    else:
        assert process.returncode == 1 and f"error: {item_name(data, 5)} cannot" in output
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
    states = [
        line.split()[1] for line in listed.splitlines() if int(line.split()[0]) == process.pid
    ]
    assert all(state.startswith("Z") for state in states), states  # nothing is left that runs
