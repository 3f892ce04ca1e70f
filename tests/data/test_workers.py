"""Work in processes: results of all items, workers that end with the run, and no other process with them."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.data.storage.workers import parallel_map, read_ahead, skip

prefix = ""


def set_prefix():
    global prefix
    prefix = "set up "


def described(item: int) -> str:
    return f"{prefix}{item}"


def write_slowly(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("begun")
        time.sleep(0 if path.name == "first" else 60)


def die(item: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_has_its_result_after_the_setup(workers, monkeypatch):
    monkeypatch.setitem(globals(), "prefix", "")
    found = dict(parallel_map(described, range(20), workers, setup=set_prefix))
    assert found == {item: f"set up {item}" for item in range(20)}


def test_an_interrupted_run_ends_its_own_workers_and_no_other_process(tmp_path):
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        paths = [tmp_path / name for name in ("first", "second", "third", "fourth")]
        results = parallel_map(write_slowly, paths, 2)
        next(results)
        while len(list(tmp_path.iterdir())) < 3:  # two files are being written
            time.sleep(0.02)
        started = time.time()
        results.close()
        assert time.time() - started < 20
        assert [path.name for path in tmp_path.iterdir()] == ["first"]  # and no temporary file
        assert other.is_alive()
    finally:
        other.terminate()
        other.join()


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(ValueError, match="a worker process died, perhaps because memory ran out"):
        list(parallel_map(die, range(4), 2))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_is_read_ahead_comes_in_order_within_the_limit(workers):
    begun, largest = [], 0

    def read(item: int) -> int:
        begun.append(item)
        time.sleep(0.002 * (item % 3))  # so that threads do not end in order
        return -item

    items = [3, 1, 2, 9, 1, 1, 1, 5, 2, 1]  # also their sizes; 9 is larger than the limit
    results, taken = [], 0
    for item, result in read_ahead(read, items, workers, lambda item: item, limit=6):
        results.append((item, result))
        time.sleep(0.01)
        largest = max(largest, sum(begun) - taken)
        taken += item
    assert results == [(item, -item) for item in items]
    # what was read and not yet taken, and the item in hand
    assert largest <= (9 if workers == 0 else 6 + 9)


def test_threads_read_while_the_caller_works():
    second = threading.Event()
    results = read_ahead(lambda item: item and second.set(), [0, 1], 1, lambda item: 1, limit=2)
    next(results)
    assert second.wait(10)  # nobody has asked for it
    assert [item for item, _ in results] == [1]


def test_an_error_and_an_interruption_end_the_reading():
    done = []

    def read(item: int) -> None:
        time.sleep(0.01)
        done.append(item)
        if item == 2:
            raise RuntimeError("unexpected")

    results = read_ahead(read, range(100), 2, lambda item: 1, limit=1000)
    next(results)
    results.close()
    time.sleep(0.05)
    assert len(done) < 20 and threading.active_count() < 20
    with pytest.raises(RuntimeError, match="unexpected"):
        list(read_ahead(read, range(100), 2, lambda item: 1, limit=1000))


def test_a_bar_that_is_disabled_counts_nothing():
    with tqdm(total=5, disable=True) as bar:
        skip(bar, 3)
        assert not bar.n


PRINTING = """
import os, sys
from fairseq_resynth.data.storage.workers import parallel_map
if __name__ == "__main__":
    list(parallel_map(os.getpgid, [0, 0, 0, 0], 2))
    for _ in parallel_map(os.getpgid, iter(lambda: 0, None), 2):
        print("made", flush=True)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    """They hold the write end of its output; a reader finds the end of it once all are gone."""
    (tmp_path / "run.py").write_text(PRINTING)
    command = [sys.executable, tmp_path / "run.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"made\n"
        process.kill()
        ended = threading.Thread(target=process.stdout.read, daemon=True)
        ended.start()
        ended.join(120)
        assert not ended.is_alive()
