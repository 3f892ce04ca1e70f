"""Two processes over gloo train as one process does on the joined batch."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_corpus import f0_arguments, train_arguments, write_data, write_f0_data

UPDATES = 3
SCRIPT = Path(__file__).with_name("two_ranks.py")
VALID = [16000, 20480, 12800, 17600, 24000]
BACKENDS = ("legacy_ddp", "pytorch_ddp")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_trainings(folder: Path, trainings: dict, world_size: int, rank: int, port: int) -> Path:
    """Writes what two_ranks.py does in one process; every training for each backend if there are two."""
    distributed = [
        "--distributed-world-size", str(world_size), "--distributed-rank", str(rank),
        "--distributed-no-spawn", "--distributed-backend", "gloo",
        "--distributed-init-method", f"tcp://127.0.0.1:{port}",
    ]  # fmt: skip
    jobs = []
    for name, (arguments, updates, backends) in trainings.items():
        for backend in backends if world_size > 1 else ("alone",):
            extra = [*distributed, "--ddp-backend", backend] if world_size > 1 else []
            batch = ["--batch-size", str(4 // world_size)]
            path = str(folder / f"{name}_{backend}_{rank}.pt")
            words = [*arguments, *batch, *extra]
            checkpoint = str(folder / f"{name}_{backend}_of_{world_size}.checkpoint")
            job = {"path": path, "updates": updates, "checkpoint": checkpoint, "arguments": words}
            jobs.append(job)
    path = folder / f"rank{rank}_of_{world_size}.json"
    path.write_text(json.dumps(jobs))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All trainings, by one process alone and by two at once: what each holds in the end."""
    folder = tmp_path_factory.mktemp("distributed")
    four = write_data(folder / "four", {"train": [16000, 20480, 32000, 17000]})
    lengths = {"train": [16000, 20480, 32000], "valid": VALID}
    measured = write_f0_data(folder / "measured", lengths)
    five = write_f0_data(folder / "five", {"train": [20480, 26880, 32000, 17920, 24320]})
    simultaneous = ("--gan-update", "simultaneous")
    trainings = {
        "unit_vocoder": (train_arguments(four, folder), UPDATES, BACKENDS),
        "simultaneous": (train_arguments(four, folder, *simultaneous), UPDATES, BACKENDS),
        "measures": (train_arguments(measured, folder, "--eval-audio", 5), 0, BACKENDS[:1]),
        "f0_quantizer": (f0_arguments(five, folder), UPDATES, BACKENDS[:1]),
    }
    for world_size in (1, 2):
        port, processes = free_port(), []
        for rank in range(world_size):
            path = write_trainings(folder, trainings, world_size, rank, port)
            command = [sys.executable, str(SCRIPT), str(path)]
            processes.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        for process in processes:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output[-4000:]

    def load(name, backend="alone", rank=0):
        return torch.load(folder / f"{name}_{backend}_{rank}.pt", weights_only=True)

    return load


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


def assert_equal_end(one: dict, two: dict) -> None:
    for name, value in one["end"].items():
        assert torch.equal(value, two["end"][name]), name


@pytest.mark.parametrize("name", ["unit_vocoder", "f0_quantizer"])
def test_every_rank_resumes(trained, name):
    """Also those that did not write the checkpoint."""
    for found in (trained(name), *(trained(name, "legacy_ddp", rank) for rank in range(2))):
        for weight, value in found["end"].items():
            assert torch.equal(value, found["resumed"][weight]), weight


def test_unit_vocoder(trained):
    """Tolerance 2 %: Adam's first steps have the sign of gradients that round differently."""
    first, second = (trained("unit_vocoder", "legacy_ddp", rank) for rank in range(2))
    assert_equal_end(first, second)
    assert_same_training(trained("unit_vocoder"), first, 0.02)
    others = [trained("unit_vocoder", "pytorch_ddp", rank) for rank in range(2)]
    assert_equal_end(first, others[0])
    assert_equal_end(*others)


def test_measures_of_validation(trained):
    """Five utterances in batches of two: the second process' last batch is a dummy, which must not count."""
    alone = trained("measures")["validation"]
    frames = sum(VALID) / 80
    assert alone["vde"][1] == frames
    assert alone["mel_l1"][1] == pytest.approx(frames / 200)
    for name, (mean, weight) in alone.items():
        for rank in range(2):
            found = trained("measures", "legacy_ddp", rank)["validation"]
            assert found[name] == pytest.approx([mean, weight], rel=1e-5), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_simultaneous_steps(backend, trained):
    """The gradient that the discriminators' one pass leaves reaches both processes' averages."""
    ranks = [trained("simultaneous", backend, rank) for rank in range(2)]
    assert_equal_end(*ranks)
    assert_same_training(trained("simultaneous"), ranks[0], 0.02)


def test_f0_quantizer(trained):
    """The codebook too: its sums are those of both processes, without the dummy batch of the second one."""
    ranks = [trained("f0_quantizer", "legacy_ddp", rank) for rank in range(2)]
    assert_equal_end(*ranks)
    assert_same_training(trained("f0_quantizer"), ranks[0], 0.02)
