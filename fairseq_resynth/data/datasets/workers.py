"""Processes of a PyTorch DataLoader that load the batches of a dataset for as long as a training lasts."""

import multiprocessing
import os
import signal
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data._utils.signal_handling import _remove_worker_pids

Batch = dict[str, Any]  # nested, of tensors and plain values
Request = tuple[int, Sequence[int]]  # the epoch, and the rows of a batch

# What a cluster sends to all processes of a training before it kills them: Slurm's SIGTERM, and SIGUSR2,
# which submitit asks it for.
PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
_NO_ROW = -1
# Errors whose message says all that a user needs.
_EXPLAINED = (ValueError, OSError)


class LoadingError(RuntimeError):
    """An item cannot be loaded, or the process that loaded it ended."""


class BatchSource(Protocol):
    """A dataset as the workers use it."""

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which items may depend on."""

    def __getitem__(self, row: int) -> Any:
        """One item."""

    def collater(self, items: list[Any]) -> Batch:
        """Joins items to a batch."""

    def describe(self, row: int) -> str:
        """The name of a row for messages."""


def load_batch(
    dataset: BatchSource, rows: Sequence[int], starts: Callable[[int], None] = lambda row: None
) -> Batch:
    """Loads a batch; `starts` is called with each row before it is loaded, with -1 after the last one.

    Raises LoadingError, which names the row or the rows, if that fails.
    """
    items, what = [], ""
    try:
        for row in rows:
            starts(int(row))
            what = dataset.describe(int(row))
            items.append(dataset[int(row)])
        starts(_NO_ROW)
        what = f"the batch of {describe_rows(dataset, rows)}"
        return dataset.collater(items)
    except Exception as error:
        detail = "" if isinstance(error, _EXPLAINED) else f"\n{traceback.format_exc()}"
        raise LoadingError(
            f"{what} cannot be loaded: {type(error).__name__}: {error}{detail}"
        ) from error


def describe_rows(dataset: BatchSource, rows: Sequence[int], shown: int = 3) -> str:
    """The names of rows for messages: of the first ones whole, of the others the numbers."""
    names = ", ".join(dataset.describe(int(row)) for row in rows[:shown])
    others = ", ".join(str(int(row)) for row in rows[shown:])
    return names + (f" and {len(rows) - shown} more ({others})" if others else "")


class _Batches(torch.utils.data.Dataset):
    """A dataset whose items are batches, by request; it notes the process and the row of each worker."""

    def __init__(self, dataset: BatchSource, num_workers: int):
        self._dataset = weakref.ref(dataset)  # which owns this object
        # What is left of a worker that was killed: its process id, and the row that it was loading.
        self.notes = torch.full((num_workers, 2), _NO_ROW, dtype=torch.int64).share_memory_()

    def __getstate__(self) -> tuple[BatchSource, torch.Tensor]:
        return self._dataset(), self.notes

    def __setstate__(self, state: tuple[BatchSource, torch.Tensor]) -> None:
        dataset, self.notes = state
        self._dataset = lambda: dataset

    def __getitem__(self, request: Request) -> Batch | LoadingError:
        epoch, rows = request
        note, dataset = self.notes[get_worker_info().id], self._dataset()
        dataset.set_epoch(epoch)
        try:
            return load_batch(dataset, rows, lambda row: note[1].fill_(row))
        except LoadingError as error:  # as a value: PyTorch would put a traceback into its message
            return LoadingError(str(error))

    def start(self, worker: int) -> None:
        """Begins a worker, which the main process ends, and not a signal to the group of processes."""
        for number in (signal.SIGINT, *PREEMPTION_SIGNALS):
            signal.signal(number, signal.SIG_IGN)
        self.notes[worker, 0] = os.getpid()


class _Plan(Sampler):
    """The requests to come. Unlike other samplers it goes on when more are added after its end."""

    def __init__(self) -> None:
        self.coming: deque[Request] = deque()
        self.loading: deque[Request] = deque()  # what the workers have got and is not yet returned

    def __iter__(self) -> "_Plan":
        return self

    def __next__(self) -> Request:
        if not self.coming:
            raise StopIteration
        self.loading.append(self.coming.popleft())
        return self.loading[-1]


class LoadingWorkers:
    """Worker processes that load batches ahead; they end with `close`, with this object or with the program.

    A worker is told the epoch with each batch, so it serves every epoch. Workers must be started from the
    main thread: one that is forked while another thread holds a lock may wait for it forever.

    Args:
        dataset: what to load.
        num_workers: number of processes, at least 1.
        ahead: number of batches that are loading or ready, rounded up to a multiple of `num_workers`.
    """

    def __init__(self, dataset: BatchSource, num_workers: int, ahead: int):
        self._dataset = weakref.proxy(dataset)  # which may own this object
        self.size = (num_workers, ahead)
        batches = _Batches(dataset, num_workers)
        self._notes, self._plan = batches.notes, _Plan()
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=self._plan,
            num_workers=num_workers,
            prefetch_factor=-(-ahead // num_workers),
            collate_fn=_unchanged,
            worker_init_fn=batches.start,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available() and torch.cuda.is_initialized(),
        )
        self._owned: dict[str, Any] = {"loader": loader}
        self.close = weakref.finalize(self, _end, os.getpid(), self._owned, self._notes)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that have started."""
        return [pid for pid in self._notes[:, 0].tolist() if pid > 0]

    def batch(self, requests: Sequence[Request]) -> Batch:
        """Returns the batch of the first request, and has the others loaded for the next calls.

        Earlier requests that do not begin this list, in its order, are forgotten. Raises LoadingError if a
        batch cannot be loaded or a worker ended; the workers are closed then.
        """
        known = [*self._plan.loading, *self._plan.coming]
        try:
            if known and list(requests[: len(known)]) == known:
                self._plan.coming.extend(requests[len(known) :])
            else:
                self._plan.loading.clear()
                self._plan.coming = deque(requests)
                self._start()
            result = next(self._owned["batches"])
        except RuntimeError as error:
            message = self._describe_end(str(error))
            self.close()
            raise LoadingError(message) from None
        self._plan.loading.popleft()
        if isinstance(result, LoadingError):
            self.close()
            raise result
        return result

    def _start(self) -> None:
        """Starts the workers, or has those that run forget what they load."""
        batches = self._owned["batches"] = iter(self._owned["loader"])
        # PyTorch's handler of SIGCHLD, once a DataLoader has set it, would raise anywhere in the training
        # when one of these workers ends, and know no row. Waiting for a batch notices that too.
        if batches._worker_pids_set:
            _remove_worker_pids(id(batches))
            batches._worker_pids_set = False

    def _describe_end(self, reason: str) -> str:
        """What PyTorch says of workers that have ended, with the rows that they were loading."""
        running = {child.pid for child in multiprocessing.active_children()}
        rows = [row for pid, row in self._notes.tolist() if pid not in running and row != _NO_ROW]
        ended = [self._dataset.describe(row) for row in rows]
        if not ended:
            ended = [describe_rows(self._dataset, self._plan.loading[0][1])]
        return (
            f"{reason.rstrip('.')}, while loading {' and '.join(ended)}. The system kills processes when "
            "memory runs out; fewer --num-workers need less."
        )


def _unchanged(batch: Batch) -> Batch:
    return batch


def _end(owner: int, owned: dict[str, Any], notes: torch.Tensor) -> None:
    """Ends workers at once: they hold nothing that must be finished, and PyTorch would wait for them."""
    if os.getpid() != owner:  # in a process that was forked later
        return
    pids = notes[:, 0].tolist()
    workers = [child for child in multiprocessing.active_children() if child.pid in pids]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    owned.clear()
