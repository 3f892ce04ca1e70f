"""The same function over many files, in several processes or threads, with a progress bar."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = "OMP_NUM_THREADS"
_leaving = False  # of a worker: whether its parent has told it to end


def _leave(*_: object) -> None:
    global _leaving
    _leaving = True
    raise SystemExit  # rather than ending at once, so that temporary files are removed


def _start_worker(setup: Callable[[], object] | None) -> None:
    # Ctrl-C reaches the whole process group. Only the parent handles it, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if setup:
        setup()


def _end_with_parent() -> None:
    """Ends this process once its parent has been killed; the pool's own loop would wait for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    if _leaving:
        raise SystemExit
    return function(item)


@contextlib.contextmanager
def _one_thread_per_worker() -> Iterator[None]:
    """The processes inherit the environment, and N workers of N threads each would compete for the cores."""
    before = os.environ.get(_THREADS)
    os.environ.setdefault(_THREADS, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    preload: Sequence[str] = (),
    setup: Callable[[], object] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Yields (item, function(item)) as they finish, in any order; at most 4 items per worker are under way.

    The function does not raise for a bad item but returns what failed. With several workers, it is pickled,
    as are its results and `setup`, which each process calls once; `preload` names modules to import once
    for all, in addition to the function's own. Raises ValueError if a worker process died.
    """
    if workers <= 1:
        if setup:
            setup()
        for item in items:
            yield item, function(item)
        return
    # The server that is forked has imported everything and has no threads: N workers import once, safely.
    context = multiprocessing.get_context("forkserver")
    named = function.func if isinstance(function, functools.partial) else function
    context.set_forkserver_preload([__name__, getattr(named, "__module__", __name__), *preload])
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (setup,))
    finished = False
    try:
        with _one_thread_per_worker():
            yield from _bounded(pool, function, iter(items), 4 * workers)
        finished = True
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ValueError(
            "a worker process died, perhaps because memory ran out: try fewer --workers; the same command "
            "continues"
        ) from error
    finally:
        if not finished:  # an interruption does not wait for what the processes have begun
            # The public method, terminate_workers, exists only from Python 3.14.
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _bounded(pool, function, items: Iterator[Item], limit: int) -> Iterator[tuple[Item, Result]]:
    pending = {}
    while True:
        for item in itertools.islice(items, limit - len(pending)):
            pending[pool.submit(_call, function, item)] = item
        if not pending:
            return
        finished, _ = concurrent.futures.wait(pending, return_when="FIRST_COMPLETED")
        for future in finished:
            yield pending.pop(future), future.result()


def read_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    size: Callable[[Item], int],
    limit: int,
) -> Iterator[tuple[Item, Result]]:
    """Yields (item, function(item)) in the order of the items, computed ahead by this many threads: as many
    items as have sizes of at most `limit` together, or one. With 0 workers, each is computed when it is
    needed."""
    if workers < 1:
        for item in items:
            yield item, function(item)
        return
    waiting: collections.deque = collections.deque()
    held = 0
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        for item in items:
            while waiting and held + size(item) > limit:
                held -= size(waiting[0][0])
                first, future = waiting.popleft()
                yield first, future.result()
            waiting.append((item, pool.submit(function, item)))
            held += size(item)
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:  # an interruption waits only for what the threads have begun
        pool.shutdown(wait=True, cancel_futures=True)


def progress(iterable: Iterable[Item] | None, total: int, what: str, done: int = 0) -> tqdm:
    """Passes items through while a bar on stderr counts them up from `done`, after the words `what`; without
    items, a bar to be updated."""
    return tqdm(iterable, desc=what, total=total, initial=done, unit="file", mininterval=0.5)


def skip(bar: tqdm, count: int) -> None:
    """Counts what an earlier run has done. The bar estimates no time from it that the rest takes."""
    if bar.disable:  # by TQDM_DISABLE: such a bar has none of what follows
        return
    bar.initial += count
    bar.n += count
    bar.last_print_n += count
    if (now := time.time()) - bar.last_print_t >= bar.mininterval:
        bar.last_print_t = now
        bar.refresh()
