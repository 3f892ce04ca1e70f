"""scripts/gpu.sh: its steps by themselves, and all of it with tiny sizes on whatever device there is."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest
from small_corpus import REPOSITORY


@pytest.fixture(scope="module")
def steps():
    path = REPOSITORY / "scripts" / "gpu_steps.py"
    spec = importlib.util.spec_from_file_location("gpu_steps", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_step_that_fails_or_hangs_does_not_stop_the_others(steps, tmp_path, monkeypatch, capsys):
    # The third step's child would outlive it and write a file.
    child = f"import time; time.sleep(7); open({str(tmp_path / 'late')!r}, 'w')"
    hang = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])"
    hang += "; time.sleep(60)"
    code = {"good": "print('{\"speed\": 2.5}')", "bad": "raise ValueError('found 3')", "slow": hang}
    limits = {"good": 60, "bad": 60, "slow": 5.5}
    planned = [
        steps.Step(name, limits[name], [sys.executable, "-c", text]) for name, text in code.items()
    ]
    absent = steps.Step("absent", 60, [sys.executable, str(tmp_path / "no.py")], needs="--tiny")
    monkeypatch.setattr(steps, "plan", lambda out, cuda: [*planned, absent, planned[0]])
    monkeypatch.setattr(steps, "TINY", True)
    monkeypatch.setattr(steps, "describe_host", lambda: {"cuda": False, "device": "CPU"})
    monkeypatch.setattr(steps, "TINY_FACTOR", 1)
    monkeypatch.setattr(sys, "argv", ["gpu_steps.py", str(tmp_path)])
    assert steps.main() == 1
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in code}
    statuses = [found[name]["status"] for name in code]
    assert statuses == ["ok", "failed", "time limit"]
    assert found["good"]["rows"] == [{"speed": 2.5}]
    assert found["bad"]["end_of_log"][-1] == "ValueError: found 3"
    summary = (tmp_path / "summary.md").read_text()
    assert "| absent | not in this version |" in summary and "| speed |" in summary
    assert "bad: failed" in capsys.readouterr().out
    time.sleep(2)
    assert not (tmp_path / "late").exists()


def test_missing_wheels_are_named(steps, monkeypatch, capsys):
    monkeypatch.setattr(steps, "NEEDED", {"json": "json", "no_such_module": "the-wheel-of-it"})
    monkeypatch.setattr(steps, "ROOMS", ())
    assert steps.check_imports() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no_such_module: ModuleNotFoundError")
    assert lines[0].endswith("wheel: the-wheel-of-it")
    assert json.loads(lines[1])["missing"] == 1


@pytest.mark.slow
def test_every_step_ends_well_with_tiny_sizes(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "STEPS"}
    environment |= {"TINY": "1", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    command = ["bash", str(REPOSITORY / "scripts" / "gpu.sh"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    found = {name: row for name, row in found.items() if "status" in row}
    assert {"imports", "tests", "published", "voice"} <= set(found)
    assert all(row["status"] == "ok" for row in found.values())
    assert found["published"]["rows"][0]["updates_per_second"] > 0
    assert found["voice"]["rows"][0]["wavs"] >= 1
    summary = (tmp_path / "summary.md").read_text()
    assert all(f"| {name} | ok |" in summary for name in found)
