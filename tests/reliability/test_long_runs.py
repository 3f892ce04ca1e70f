"""Long runs in small: what they hold does not grow with files, epochs or minutes."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_corpus import fairseq_train, train_arguments

from fairseq_resynth.tasks.unit_resynthesis import UnitResynthesisTask

pytestmark = pytest.mark.slow
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "long_runs.py"


def test_memory_and_open_files_of_many_files(tmp_path):
    """Of 1500 files more, each verb may take 10 MB more; their samples alone are 19 MB."""
    sizes, steps = ["100", "1600"], ["manifest", "kmeans", "quantize", "f0"]
    command = [sys.executable, BENCHMARK, "--work", tmp_path, "files", "--number", *sizes]
    command += ["--without-signal-processing", "--steps", *steps]
    output = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in output.stdout.splitlines()]
    found = {(row["number"], row["step"]): row for row in rows}
    for step in ("manifest", "quantize", "quantize, again", "f0", "f0, again"):
        few, many = found[100, step], found[1600, step]
        assert many["peak_mb"] < few["peak_mb"] + 10, step
        assert many["files"] <= few["files"] + 10, step


def open_files() -> int:
    """Without those of tensors that are on their way from a worker."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # that of the list itself
            continue
    return sum("/torch_" not in link for link in links)


def test_epochs_leave_no_files_open_and_no_threads(tiny_data, tmp_path, monkeypatch):
    held, begin = [], UnitResynthesisTask.begin_epoch

    def counted(task, epoch, model):
        held.append((open_files(), threading.active_count()))
        return begin(task, epoch, model)

    monkeypatch.setattr(UnitResynthesisTask, "begin_epoch", counted)
    options = "--max-epoch 30 --num-workers 1 --data-buffer-size 1 --no-save".split()
    fairseq_train(*train_arguments(tiny_data, tmp_path, *options))
    assert len(held) == 30
    for early, late in zip(
        zip(*held[3:10], strict=True), zip(*held[-7:], strict=True), strict=True
    ):
        assert max(late) <= max(early) + 2, held
