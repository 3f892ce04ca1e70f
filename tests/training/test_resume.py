"""Interrupted and resumed training equals uninterrupted training, bit for bit."""

import pytest
import torch
from small_corpus import (
    assert_same,
    f0_arguments,
    fairseq_train,
    train_arguments,
    write_f0_data,
)

PARTS = ("model", "criterion", "last_optimizer_state", "task_state")


@pytest.fixture(scope="module")
def f0_data(tmp_path_factory):
    lengths = {"train": [20480, 26880, 32000, 17920, 8000, 30000], "valid": [16000]}
    return write_f0_data(tmp_path_factory.mktemp("f0") / "data", lengths)


SETTINGS = {
    "unit_resynthesis": [],
    "simultaneous": ["--gan-update", "simultaneous"],
    "f0_quantization": [],
}


@pytest.mark.parametrize("task,settings", SETTINGS.items())
def test_resumed_equals_uninterrupted(task, settings, tiny_data, f0_data, tmp_path):
    """Six utterances in batches of two: update 4 is inside the second epoch, update 7 inside the third."""

    def train(folder, updates):
        make = f0_arguments if task == "f0_quantization" else train_arguments
        data = f0_data if task == "f0_quantization" else tiny_data
        extra = [
            *settings,
            "--max-update",
            updates,
            "--batch-size",
            2,
            "--num-workers",
            1,
            "--store-ema",
        ]
        fairseq_train(*make(data, tmp_path / folder, *extra))
        return torch.load(tmp_path / folder / "checkpoint_last.pt", weights_only=True)

    whole = train("whole", 7)
    half = train("resumed", 4)
    resumed = train("resumed", 7)
    for part in PARTS:
        assert_same(whole[part], resumed[part], part)
    assert_same(whole["extra_state"]["ema"], resumed["extra_state"]["ema"], "ema")
    name = next(name for name, value in whole["model"].items() if value.dtype == torch.float32)
    assert not torch.equal(half["model"][name], whole["model"][name])
    if task == "f0_quantization":
        assert whole["model"]["f0_vqvae.quantizer.num_steps"] == 7
        assert half["model"]["f0_vqvae.quantizer.num_steps"] == 4


def test_other_speakers_are_not_resumed(tiny_data, tmp_path):
    """The rows of the speaker table would mean other people."""
    save_dir = tmp_path / "checkpoints"
    fairseq_train(*train_arguments(tiny_data, save_dir, "--max-update", 1))
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_data.iterdir():
        if path.is_file():
            text = path.read_text()
            (other / path.name).write_text(text.replace("boris", "carla"))
    done = fairseq_train(*train_arguments(other, save_dir, "--max-update", 2), check=False)
    assert done.returncode != 0
    assert "speakers ('anna', 'boris')" in done.stderr and "carla" in done.stderr
