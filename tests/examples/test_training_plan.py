"""The number of updates that fill a given time, and the recipes that train by it."""

import subprocess
import sys

import pytest
from small_corpus import REPOSITORY
from training_configs import composed

SCRIPT = REPOSITORY / "examples" / "training_plan.py"
LINE = '[2026-01-01 10:00:00,000][train_inner][INFO] - {{"epoch": 1, "ups": "{}", "num_updates": "{}"}}'


def run_plan(tmp_path, speeds, minutes, elapsed):
    log = tmp_path / "train.log"
    lines = [LINE.format(speed, 3 * number) for number, speed in enumerate(speeds, 1)]
    log.write_text("\n".join(["another line", *lines]))
    command = [SCRIPT, log, "--minutes", minutes, "--elapsed", elapsed]
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )


def test_updates_fill_the_minutes_that_the_probe_leaves(tmp_path):
    # 12 updates at 4 and 12 at 1 per second are 15 s; the other 15 of 30 s are the start. The first interval
    # of each half warms up, and one in which the machine did something else does not count.
    done = run_plan(tmp_path, [0.5, 4, 4, 0.2, 0.3, 1, 1, 1], 10, 30)
    assert done.returncode == 0, done.stderr
    overrides = dict(pair.split("=") for pair in done.stdout.split())
    left = (600 - 30 - 15) * 0.94
    first = round(0.2 * left * 4)
    assert int(overrides["criterion.discriminator_start"]) == first
    assert int(overrides["optimization.max_update"]) == first + round(0.8 * left)
    for name in ("timed_source_filter", "timed_source_filter_gpu"):
        cfg = composed(name, *done.stdout.split())
        assert cfg.optimization.stop_time_hours == pytest.approx(12.5 / 60, abs=1e-4)
        assert cfg.lr_scheduler._name == "polynomial_decay"  # to 0 at max_update


def test_no_time_left_and_a_probe_that_ended_early_are_errors(tmp_path):
    done = run_plan(tmp_path, [4, 4, 4, 4, 1, 1, 1, 1], 0.5, 30)
    assert done.returncode == 2 and "nothing of 0.5 minutes is left to train" in done.stderr
    done = run_plan(tmp_path, [4], 8, 30)
    assert done.returncode == 2 and "1 intervals of updates, expected at least four" in done.stderr
