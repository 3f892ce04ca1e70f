"""The benchmarks start, and the quickest of them measures what it says."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_configs import composed

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


NAMES = sorted(path.name for path in BENCHMARKS.glob("*.py"))
# In one process, since importing torch takes most of the time.
SHOW_HELP = """
import contextlib, io, json, pathlib, runpy, sys
usages, folder = {}, pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))  # as for a script
for path in sorted(folder.glob("*.py")):
    sys.argv, out = [path.name, "--help"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        runpy.run_path(str(path), run_name="__main__")
    usages[path.name] = out.getvalue()
print(json.dumps(usages))
"""


@pytest.fixture(scope="module")
def usages():
    command = [sys.executable, "-c", SHOW_HELP, str(BENCHMARKS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_starts(usages, name):
    assert f"usage: {name}" in usages[name]


def test_synthesis_speed_counts_the_generator():
    models = ["V1", "source_filter_small"]
    quick = ["--seconds", "0.4", "--repeats", "1", "--precision", "float32", "--json"]
    rows = [
        json.loads(line)
        for line in run("synthesis_speed.py", "--models", *models, *quick).splitlines()
    ]
    assert [row["model"] for row in rows] == models
    assert [round(row["parameters_m"], 1) for row in rows] == [14.2, 3.4]
    for row in rows:
        assert (
            row["floor"]
            < row["rtf resynth"]
            == pytest.approx(row["floor"] * row["resynth / floor"])
        )
    assert rows[0]["gflop_a_second"] == pytest.approx(16.1, abs=0.1)


def test_variants_of_training_signals_change_values_of_the_configuration():
    spec = importlib.util.spec_from_file_location("signals", BENCHMARKS / "training_signals.py")
    signals = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(signals)
    paper = composed("benchmark_training_signals")
    assert signals.VARIANTS["paper"] == ()
    for name, overrides in signals.VARIANTS.items():
        variant = composed("benchmark_training_signals", *overrides)
        assert (variant == paper) == (name == "paper")
        crops = variant.dataset.batch_size * variant.task.segment_size
        assert crops == paper.dataset.batch_size * paper.task.segment_size


@pytest.mark.slow  # test_start_up.py holds what it measures; six new processes
def test_start_up_compares_two_checkouts():
    here = str(BENCHMARKS.parent)
    output = run("start_up.py", "--against", here, "--rounds", "1", "--json")
    rows = {row["command"]: row for row in map(json.loads, output.splitlines())}
    assert set(rows) == {"import torch", "resynth --help", "resynth synthesize"}
    assert rows["resynth --help"]["seconds"] < rows["import torch"]["seconds"] / 2
    assert all(0.2 < row["ratio"] < 5 for row in rows.values())


@pytest.mark.slow
def test_training_steps_dispatch_a_third_of_the_operators(tmp_path):
    """Of those that each step launched before foreach calls; arms that need a GPU say so."""
    arms = ["--arms", "published,eager,graphs", "--precision", "float32,bfloat16"]
    run("training_step.py", "--tiny", *arms, "--seconds", "0", "--json", str(tmp_path / "rows"))
    rows = json.loads((tmp_path / "rows").read_text())
    eager = [row for row in rows if row["arm"] == "eager"]
    assert [row["net"] for row in eager[::2]] == ["paper", "mel", "source_filter"]
    for row in eager:
        assert row["operators"] < row["before"][0]
        assert row["launching_operators"] < row["before"][1] / 3
        assert row["updates_per_second"] > 0
    published = [row for row in rows if row["arm"] == "published"]
    assert len(published) == 2
    assert eager[0]["loss_difference"] < 1e-4
    for row in rows:
        assert "error" not in row or row["arm"] == "graphs" and "CUDA" in row["error"]


@pytest.mark.slow  # imports torch, transformers and scikit-learn in a new process
def test_preparation_is_measured_as_it_is_and_as_it_was(tmp_path):
    pytest.importorskip("transformers")
    output = run("preparation_speed.py", "--tiny", "--device", "cpu", "--json", f"{tmp_path}/rows")
    rows = json.loads((tmp_path / "rows").read_text())
    assert rows == [json.loads(line) for line in output.splitlines()]
    found = {(row["what"], row["way"]): row for row in rows}
    names = {"quantize logmel", "quantize hf whisper", "kmeans 20 of (3000, 16)"}
    assert set(found) == {(name, way) for name in names for way in ("old", "new")}
    assert all(row["seconds"] >= 0 and row["device"] == "cpu" for row in rows)
    old, new = (found["kmeans 20 of (3000, 16)", way] for way in ("old", "new"))
    assert new["mean_squared_distance"] <= 1.01 * old["mean_squared_distance"]
