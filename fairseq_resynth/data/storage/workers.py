"""The same function over many files, in processes of their own, with a progress bar."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = "OMP_NUM_THREADS"


def _ignore_interrupt() -> None:
    # Ctrl-C reaches the whole process group; the parent alone answers it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _one_thread_a_worker() -> Iterator[None]:
    """The processes inherit the environment, and N workers of N threads each would fight."""
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
) -> Iterator[tuple[Item, Result]]:
    """Yields (item, function(item)) as they finish, in any order; at most 4 items a worker are under way.

    Args:
        function: can be pickled, as its results can; raises nothing for a bad item but returns what failed.
        items: may be longer than memory.
        workers: processes; up to 1: no other process.
        preload: modules to import once for all workers, before they part, beside the function's own.

    Raises:
        ValueError: a worker died, for want of memory as a rule.
    """
    if workers <= 1:
        for item in items:
            yield item, function(item)
        return
    # Forks of a process that has imported and has no threads yet: safe, and N workers import once.
    context = multiprocessing.get_context("forkserver")
    named = function.func if isinstance(function, functools.partial) else function
    context.set_forkserver_preload([__name__, getattr(named, "__module__", __name__), *preload])
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _ignore_interrupt)
    try:
        with _one_thread_a_worker():
            yield from _bounded(pool, function, iter(items), 4 * workers)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ValueError(
            "a worker process died, out of memory perhaps: try fewer --workers; the same command continues"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _bounded(pool, function, items: Iterator[Item], limit: int) -> Iterator[tuple[Item, Result]]:
    pending = {}
    exhausted = False
    while pending or not exhausted:
        while len(pending) < limit and not exhausted:
            try:
                item = next(items)
            except StopIteration:
                exhausted = True
            else:
                pending[pool.submit(function, item)] = item
        finished, _ = concurrent.futures.wait(pending, return_when="FIRST_COMPLETED")
        for future in finished:
            yield pending.pop(future), future.result()


def progress(iterable: Iterable[Item], total: int, what: str, done: int = 0) -> Iterator[Item]:
    """Passes items through while a bar on stderr counts them.

    Args:
        iterable: what to pass through.
        total: items with those done earlier.
        what: words before the bar.
        done: items that an earlier run did.
    """
    return iter(tqdm(iterable, desc=what, total=total, initial=done, unit="file", mininterval=0.5))
