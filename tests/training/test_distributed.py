"""Two processes over gloo train as one process does on the joined batch."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_corpus import f0_arguments, train_arguments, write_data, write_f0_data

UPDATES = 3
SCRIPT = Path(__file__).with_name("two_ranks.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train(
    folder: Path, arguments: list[str], world_size: int, *extra: str, updates: int = UPDATES
) -> list[dict]:
    """Runs every rank at once; returns what each holds in the end."""
    port, ranks = free_port(), []
    batch = ["--batch-size", str(4 // world_size)]
    for rank in range(world_size):
        distributed = []
        if world_size > 1:
            distributed = [
                "--distributed-world-size", str(world_size), "--distributed-rank", str(rank),
                "--distributed-no-spawn", "--distributed-backend", "gloo",
                "--distributed-init-method", f"tcp://127.0.0.1:{port}", *extra,
            ]  # fmt: skip
        path = folder / f"rank{rank}_of_{world_size}{'_'.join(extra)}.pt"
        command = [sys.executable, SCRIPT, path, str(updates), *arguments, *batch, *distributed]
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        ranks.append((path, process))
    for _, process in ranks:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-4000:]
    return [torch.load(path, weights_only=True) for path, _ in ranks]


def assert_same_training(one: dict, two: dict, tolerance: float) -> None:
    """The two ways from start to end differ by at most `tolerance` of their length."""
    moved = difference = 0.0
    for name, start in one["start"].items():
        assert torch.equal(start, two["start"][name]), name
        if start.dtype == torch.float32 and "._u" not in name and "._v" not in name:
            moved += float(((one["end"][name] - start) ** 2).sum())
            difference += float(((one["end"][name] - two["end"][name]) ** 2).sum())
    assert moved > 0
    assert (difference / moved) ** 0.5 < tolerance


def assert_equal_ranks(ranks: list[dict]) -> None:
    for name, value in ranks[0]["end"].items():
        assert torch.equal(value, ranks[1]["end"][name]), name


@pytest.fixture(scope="module")
def four_utterances(tmp_path_factory):
    lengths = {"train": [16000, 20480, 32000, 17000]}
    return write_data(tmp_path_factory.mktemp("data") / "four", lengths)


def test_unit_vocoder(four_utterances, tmp_path):
    """Tolerance 2 %: Adam's first steps have the sign of gradients that round differently."""
    arguments = train_arguments(four_utterances, tmp_path)
    (alone,) = train(tmp_path, arguments, 1)
    ranks = train(tmp_path, arguments, 2, "--ddp-backend", "legacy_ddp")
    assert_equal_ranks(ranks)
    assert_same_training(alone, ranks[0], 0.02)
    other_backend = train(tmp_path, arguments, 2, "--ddp-backend", "pytorch_ddp")
    assert_equal_ranks([ranks[0], other_backend[0]])
    assert_equal_ranks(other_backend)


def test_measures_of_validation(tmp_path):
    """Five utterances in batches of two: the second process' last batch is a dummy, which must not count."""
    lengths = {"train": [16000, 20480, 32000], "valid": [16000, 20480, 12800, 17600, 24000]}
    data = write_f0_data(tmp_path / "data", lengths)
    arguments = train_arguments(data, tmp_path, "--eval-audio", 5)
    (alone,) = train(tmp_path, arguments, 1, updates=0)
    ranks = train(tmp_path, arguments, 2, "--ddp-backend", "legacy_ddp", updates=0)
    frames = sum(lengths["valid"]) / 80
    assert alone["validation"]["vde"][1] == frames
    assert alone["validation"]["mel_l1"][1] == pytest.approx(frames / 200)
    for name, (mean, weight) in alone["validation"].items():
        for rank in ranks:
            assert rank["validation"][name] == pytest.approx([mean, weight], rel=1e-5), name


def test_simultaneous_steps(four_utterances, tmp_path):
    """The gradient that the discriminators' one pass leaves reaches both processes' averages."""
    arguments = train_arguments(four_utterances, tmp_path, "--gan-update", "simultaneous")
    (alone,) = train(tmp_path, arguments, 1)
    for backend in ("legacy_ddp", "pytorch_ddp"):
        ranks = train(tmp_path, arguments, 2, "--ddp-backend", backend)
        assert_equal_ranks(ranks)
        assert_same_training(alone, ranks[0], 0.02)


def test_f0_quantizer(tmp_path):
    """The codebook too: its sums are those of both processes, without the dummy batch of the second one."""
    data = write_f0_data(tmp_path / "data", {"train": [20480, 26880, 32000, 17920, 24320]})
    arguments = f0_arguments(data, tmp_path)
    (alone,) = train(tmp_path, arguments, 1)
    ranks = train(tmp_path, arguments, 2, "--ddp-backend", "legacy_ddp")
    assert_equal_ranks(ranks)
    assert_same_training(alone, ranks[0], 0.02)
