"""Processes that load the batches of a dataset for as long as a training lasts."""

import os
import signal
import socket
import tempfile
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, BinaryIO, NamedTuple, Protocol

import torch
import torch.multiprocessing

Batch = dict[str, Any]  # nested, of tensors and plain values
Request = tuple[int, Sequence[int]]  # the epoch, and the rows of a batch

_NO_ROW = -1
_PARENT_CHECK = 5  # seconds between two looks of an idle worker whether the training still exists
_ALIGNMENT = 64  # bytes
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
        what = f"the batch of {_describe_rows(dataset, rows)}"
        return dataset.collater(items)
    except Exception as error:
        detail = "" if isinstance(error, _EXPLAINED) else f"\n{traceback.format_exc()}"
        raise LoadingError(
            f"{what} cannot be loaded: {type(error).__name__}: {error}{detail}"
        ) from error


def _describe_rows(dataset: BatchSource, rows: Sequence[int], shown: int = 3) -> str:
    names = ", ".join(dataset.describe(int(row)) for row in rows[:shown])
    return names + (f" and {len(rows) - shown} more" if len(rows) > shown else "")


class _Loading(NamedTuple):
    """A request that was sent to a worker."""

    number: int
    request: Request
    worker: int


class LoadingWorkers:
    """Worker processes that load batches ahead; they end with `close`, with this object or with the program.

    A worker is told the epoch with each batch, so it serves every epoch. The main process reads the
    results itself, without a thread: a process that is forked while another thread holds a lock may wait
    for it forever.
    """

    def __init__(self, dataset: BatchSource, num_workers: int):
        context = torch.multiprocessing.get_context()
        # The row that each worker is loading, which is all that is left of a worker that was killed.
        self._rows = context.RawArray("q", [_NO_ROW] * num_workers)
        self._dataset = weakref.proxy(dataset)  # which may own this object
        self._connections: list[Connection] = []
        self._processes = []
        # What was asked for and not yet returned, in order.
        self._loading: deque[_Loading] = deque()
        self._arrived: dict[int, Batch | LoadingError] = {}
        self._next_number = 0
        with _blocked_interrupts():
            for worker in range(num_workers):
                here, there = context.Pipe()
                process = context.Process(
                    target=_work,
                    args=(dataset, there, self._rows, worker, os.getpid()),
                    daemon=True,
                    name=f"loading_{worker}",
                )
                process.start()
                there.close()
                self._connections.append(here)
                self._processes.append(process)
        self.close = weakref.finalize(
            self, _end, os.getpid(), list(self._processes), list(self._connections)
        )

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [process.pid for process in self._processes]

    def fits(self, number: int) -> bool:
        """Whether there are `number` workers, and they were not closed."""
        return self.close.alive and number == len(self._processes)

    def batch(self, requests: Sequence[Request]) -> Batch:
        """Returns the batch of the first request, and has the others loaded for the next calls.

        Earlier requests that do not begin this list, in its order, are forgotten. Raises LoadingError if a
        batch cannot be loaded or a worker ended; the workers are closed then.
        """
        earlier = [loading.request for loading in self._loading]
        if list(requests[: len(earlier)]) != earlier:
            self._loading.clear()
            self._arrived.clear()
        for request in requests[len(self._loading) :]:
            self._send(request)
        first = self._loading[0].number
        self._receive(timeout=0)  # also notices a worker that has ended since
        while first not in self._arrived:
            self._receive(timeout=None)
        self._loading.popleft()
        result = self._arrived.pop(first)
        if isinstance(result, LoadingError):
            self.close()
            raise result
        return result

    def _send(self, request: Request) -> None:
        counts = [0] * len(self._processes)
        for loading in self._loading:
            counts[loading.worker] += loading.number not in self._arrived
        worker = counts.index(min(counts))
        self._loading.append(_Loading(self._next_number, request, worker))
        self._next_number += 1
        try:
            self._connections[worker].send((self._loading[-1].number, *request))
        except OSError as error:
            self._raise_ended(worker, error)

    def _receive(self, timeout: float | None) -> None:
        """Takes the results that have arrived, after waiting for one of them up to `timeout` seconds."""
        for connection in wait(self._connections, timeout):
            try:
                number, result = connection.recv()
                if not isinstance(result, LoadingError):
                    result = _receive_tensors(connection, result)
            except (EOFError, OSError) as error:
                self._raise_ended(self._connections.index(connection), error)
            if self._loading and number >= self._loading[0].number:
                self._arrived[number] = result

    def _raise_ended(self, worker: int, error: Exception) -> None:
        process = self._processes[worker]
        process.join(timeout=1)
        row, code = self._rows[worker], process.exitcode
        waiting = [loading for loading in self._loading if loading.worker == worker]
        waiting = [loading for loading in waiting if loading.number not in self._arrived]
        where = "while it had nothing to load"
        if row != _NO_ROW:
            where = f"while it loaded {self._dataset.describe(row)}"
        elif waiting:
            where = f"before it had loaded {_describe_rows(self._dataset, waiting[0].request[1])}"
        how = f"does not answer ({error})" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out (fewer --num-workers need less)"
        self.close()
        raise LoadingError(f"worker process {process.pid} {how}, {where}.") from error


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C here and in processes that are started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(owner: int, processes: list, connections: list[Connection]) -> None:
    """Ends workers at once: they hold nothing that must be finished."""
    if os.getpid() != owner:  # in a process that was forked later
        return
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for connection in connections:
        connection.close()


def _work(dataset: BatchSource, connection: Connection, rows, worker: int, parent: int) -> None:
    """Loads what it is asked for, until the training ends or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)

    def starts(row: int) -> None:
        rows[worker] = row

    try:
        while True:
            while not connection.poll(_PARENT_CHECK):
                if os.getppid() != parent:
                    return
            number, epoch, batch_rows = connection.recv()
            dataset.set_epoch(epoch)
            with _memory_file() as file:
                try:
                    result = _write_tensors(load_batch(dataset, batch_rows, starts), file)
                except (LoadingError, OSError) as error:
                    starts(_NO_ROW)
                    result = LoadingError(str(error))
                connection.send((number, result))
                if not isinstance(result, LoadingError):
                    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
                        socket.send_fds(channel, [b"\0"], [file.fileno()])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the training has ended


class _Place(NamedTuple):
    """Where a tensor lies in the bytes of its batch."""

    offset: int
    count: int  # elements
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]


def map_values(values: Batch, function: Callable[[Any], Any]) -> Batch:
    """Nested dictionaries with the function of each value."""
    return {
        name: map_values(value, function) if isinstance(value, dict) else function(value)
        for name, value in values.items()
    }


def _write_tensors(batch: Batch, file: BinaryIO) -> tuple[Batch, int]:
    """Writes the tensors of a batch to a file; returns the batch with their places, and the size in bytes.

    One file for all tensors, whose descriptor is sent, takes less time than torch's way, which is one
    descriptor per tensor from a server. It outlives the worker and needs no space in /dev/shm, of which
    containers have little.
    """
    size = 0

    def place(value: Any) -> Any:
        nonlocal size
        if not torch.is_tensor(value):
            return value
        strides = zip(value.shape, value.stride(), strict=True)
        if 1 + sum((length - 1) * step for length, step in strides) != value.numel():
            value = value.contiguous()  # it has gaps
        where = _Place(size, value.numel(), value.dtype, value.shape, value.stride())
        file.seek(size)
        file.write(value.as_strided((value.numel(),), (1,)).view(torch.uint8).numpy())
        size += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
        return where

    layout = map_values(batch, place)
    file.truncate(size)
    file.flush()
    return layout, size


def _receive_tensors(connection: Connection, message: tuple[Batch, int]) -> Batch:
    """The batch of a layout, with the bytes that follow it; in pinned memory where CUDA is used."""
    layout, size = message
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise OSError("no file descriptor arrived: too many files are open, see `ulimit -n`")
    data = torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_initialized())
    with open(descriptors[0], "rb") as file:
        file.seek(0)
        file.readinto(data.numpy())

    def restore(value: Any) -> Any:
        if not isinstance(value, _Place):
            return value
        part = data[value.offset : value.offset + value.count * value.dtype.itemsize]
        return part.view(value.dtype).as_strided(value.shape, value.stride)

    return map_values(layout, restore)


def _memory_file() -> BinaryIO:
    """An empty file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("batch"), "w+b")
    return tempfile.TemporaryFile()
