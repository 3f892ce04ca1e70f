"""fairseq's iterator over epochs, with worker processes that outlive each of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairseq_resynth.compat import fairseq
from fairseq_resynth.data.datasets.base import UtteranceDataset
from fairseq_resynth.data.datasets.workers import Batch, Request, load_batch

iterators = fairseq.data.iterators


class EpochBatches:
    """The batches of one epoch, from some position on, as fairseq's `CountingIterator` takes them.

    Args:
        dataset: the dataset, whose epoch is read when the first batch is loaded.
        rows: the rows of each batch.
        num_workers: worker processes of the dataset; 0: batches are loaded in this process.
        ahead: number of batches that the workers load ahead.
        next_requests: returns the first requests of the next epoch, which are loaded at the end of this one.
    """

    def __init__(
        self,
        dataset: UtteranceDataset,
        rows: Sequence[Sequence[int]],
        num_workers: int,
        ahead: int,
        next_requests: Callable[[], Sequence[Request]] = tuple,
    ):
        self.dataset, self.num_workers, self.ahead = dataset, num_workers, ahead
        self._rows, self._ask_next = rows, next_requests
        self._epoch: int | None = None
        self._position = 0
        self._next_requests: Sequence[Request] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> "EpochBatches":
        return self

    def take(self, number: int) -> "EpochBatches":
        """Ends after `number` more batches."""
        self._rows = self._rows[: self._position + number]
        return self

    def __next__(self) -> Batch:
        """The next batch; raises LoadingError if it cannot be loaded."""
        if self._position >= len(self._rows):
            raise StopIteration
        if self._epoch is None:
            self._epoch = self.dataset.epoch
        if self.num_workers:
            batch = self.dataset.workers(self.num_workers, self.ahead).batch(self._requests())
        else:
            batch = load_batch(self.dataset, self._rows[self._position])
        self._position += 1
        return batch

    def _requests(self) -> list[Request]:
        end = self._position + self.ahead
        requests = [(self._epoch, rows) for rows in self._rows[self._position : end]]
        if end > len(self._rows):
            if self._next_requests is None:
                self._next_requests = self._ask_next()
            requests += self._next_requests[: end - len(self._rows)]
        return requests


class EpochIterator(iterators.EpochBatchIterator):
    """An epoch iterator with the batches and the state of fairseq's own, and with workers that stay.

    fairseq 0.12 starts other worker processes in each epoch, from a thread, and waits up to five seconds
    for each old one.

    Args:
        iterator: fairseq's iterator over the same epoch.
        settings: the settings that it was made with.
        following: returns the iterator over the next epoch; None: nothing is loaded for it ahead.
    """

    def __init__(
        self,
        iterator: iterators.EpochBatchIterator,
        settings: dict[str, Any],
        following: Callable[[], "EpochIterator"] | None = None,
    ):
        vars(self).update(vars(iterator))
        self.settings, self._following = settings, following

    @property
    def first_batch(self) -> Batch:
        """A batch for the trainer's dummy steps, always that of the first epoch: loading one takes time.

        Raises LoadingError if it cannot be loaded.
        """
        if self.dataset.dummy_batch is None:
            if not self.frozen_batches:
                return super().first_batch  # raises
            self.dataset.dummy_batch = load_batch(self.dataset, self.frozen_batches[0])
        return self.dataset.dummy_batch

    @property
    def ahead(self) -> int:
        """The number of batches that are loading or ready: --data-buffer-size, and one per worker."""
        return self.num_workers + max(self.buffer_size, self.num_workers)

    def _rows(self, epoch: int, shuffle: bool) -> list[list[int]]:
        batches = self.ordered_batches(epoch, fix_batches_to_gpus=False, shuffle=shuffle)
        return [np.asarray(batch, np.int64).tolist() for batch in batches]

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> iterators.CountingIterator | None:
        rows = self._rows(epoch, shuffle)[offset:]
        if offset and not rows:
            return None

        def next_requests() -> Sequence[Request]:
            if self._following is None:
                return ()
            following = self._following()
            first = following._rows(epoch + 1, shuffle)[: self.ahead]
            return [(epoch + 1, batch) for batch in first]

        batches = EpochBatches(self.dataset, rows, self.num_workers, self.ahead, next_requests)
        if not self.num_workers and self.buffer_size:
            batches = iterators.BufferedIterator(self.buffer_size, batches)
        counted = iterators.CountingIterator(batches, start=offset)
        if self.skip_remainder_batch:
            counted.take(len(counted) - 1)
        return counted
