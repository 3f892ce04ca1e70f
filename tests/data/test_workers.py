"""Work in processes: results of all items, workers that end with the run, and no other process with them."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.data.storage.workers import parallel_map

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
