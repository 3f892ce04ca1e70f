"""Epochs without a seam: fairseq's batches from workers that stay, and what happens when loading fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch
from fairseq.data.iterators import GroupedIterator
from fairseq.tasks import FairseqTask
from small_corpus import fairseq_train, train_arguments, write_data

from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.datasets.workers import LoadingError, LoadingWorkers
from fairseq_resynth.data.streams import read_streams
from fairseq_resynth.tasks.utterances import UtteranceTask

SEGMENT = 2560
ITEMS = 11


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lengths = {"train": [16000 + 1000 * n for n in range(ITEMS)], "valid": [16000, 20480, 9000]}
    return write_data(tmp_path_factory.mktemp("epochs") / "data", lengths)


def unit_dataset(data, split="train"):
    segment_size = SEGMENT if split == "train" else 0
    return UnitDataset(data, split, read_streams(data), segment_size)


def epochs(task, data, last, state=None, stop_after=None, group=1, **settings):
    """Batches of the epochs up to `last`, as fairseq's trainer asks for them, and the iterator's state."""
    dataset = unit_dataset(data)
    settings = {"max_sentences": 2, "seed": 5, "data_buffer_size": 3, **settings}
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
    "second of two ranks": {"num_shards": 2, "shard_id": 1},
    "without the last batch": {"skip_remainder_batch": True},
    "by length of the batch": {"max_sentences": None, "max_tokens": 20},
    "in groups": {"group": 2, "grouped_shuffling": True},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_fairseqs(data, variant, workers):
    """Order and crops of two epochs, and of a third after a resume, equal those of fairseq's own iterator."""
    expected, _, _ = epochs(FairseqTask(None), data, 3, **variant)
    ours, following, _ = epochs(UtteranceTask(None), data, 3, num_workers=workers, **variant)
    assert following == 4
    assert_equal(ours, expected)
    halfway = len(expected) // 2  # inside the second epoch
    settings = {"num_workers": workers, **variant}
    first, state, _ = epochs(UtteranceTask(None), data, 3, stop_after=halfway, **settings)
    assert state["epoch"] == 2 and state["iterations_in_epoch"]
    rest, _, _ = epochs(UtteranceTask(None), data, 3, state=state, **settings)
    assert_equal(first + rest, expected)
    _, theirs, _ = epochs(FairseqTask(None), data, 3, stop_after=halfway, **variant)
    assert state == theirs
