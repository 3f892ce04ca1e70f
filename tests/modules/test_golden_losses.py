"""Losses, discriminators and log-mel against stored outputs of the original system."""

import json

import numpy as np
import pytest
import torch
from golden import GOLDEN, formula_weight, our_name

from fairseq_resynth.modules import losses
from fairseq_resynth.modules.discriminators.families import build_discriminators

GROUPS = {"mpd": "periods", "msd": "scales"}


@pytest.fixture(scope="module")
def io():
    return np.load(GOLDEN / "gan_losses" / "io.npz")


@pytest.fixture(scope="module")
def expected():
    return json.loads((GOLDEN / "gan_losses" / "expected.json").read_text())


@pytest.fixture(scope="module")
def discriminators(io):
    """The original's weights in our discriminators, every tensor of theirs used."""
    shapes = json.loads((GOLDEN / "gan_losses" / "shapes.json").read_text())
    state = {}
    for group, tensors in shapes.items():
        for name, shape in tensors.items():
            ours = name.replace("discriminators", GROUPS[group], 1)
            key = f"{group}/{name}"
            value = torch.from_numpy(io[key]) if key in io else formula_weight(name, shape)
            if name.endswith("weight_v") and len(shape) == 1:
                state[ours.replace(".weight_v", ".parametrizations.weight.0._v")] = value
            else:
                state[our_name(ours)] = value
    module = build_discriminators()
    module.load_state_dict(state, strict=True)
    return module.eval()


@pytest.fixture(scope="module")
def outputs(io, discriminators):
    with torch.no_grad():
        real, fake = torch.from_numpy(io["real"]), torch.from_numpy(io["fake"])
        return discriminators(real), discriminators(fake)


def test_scores(outputs, expected):
    means = [float(score.mean()) for score in outputs[0][0]]
    assert means == pytest.approx(expected["scores_mpd"] + expected["scores_msd"], abs=1e-6)


@pytest.mark.parametrize("group,part", [("mpd", slice(0, 5)), ("msd", slice(5, 8))])
def test_adversarial_losses(outputs, expected, group, part):
    (real_scores, real_maps), (fake_scores, fake_maps) = outputs
    discriminator = losses.discriminator_loss(real_scores[part], fake_scores[part])
    generator = losses.generator_loss(fake_scores[part])
    matching = 2 * losses.feature_matching_loss(real_maps[part], fake_maps[part])
    assert float(discriminator) == pytest.approx(expected[f"discriminator_loss_{group}"], abs=1e-5)
    assert float(generator) == pytest.approx(expected[f"generator_loss_{group}"], abs=1e-5)
    assert float(matching) == pytest.approx(expected[f"feature_loss_{group}"], abs=1e-5)


def test_one_pass_over_both_equals_two(io, discriminators, outputs):
    both = torch.cat([torch.from_numpy(io["real"]), torch.from_numpy(io["fake"])])
    with torch.no_grad():
        scores, maps = discriminators(both)
    for one, real, fake in zip(scores, outputs[0][0], outputs[1][0], strict=True):
        torch.testing.assert_close(one, torch.cat([real, fake]), atol=1e-5, rtol=1e-5)
    fake_map = maps[0][0].chunk(2)[1]
    torch.testing.assert_close(fake_map, outputs[1][1][0][0], atol=1e-5, rtol=1e-5)


def test_log_mel(io, expected):
    mel = losses.LogMelSpectrogram()
    real, fake = mel(torch.from_numpy(io["real"])), mel(torch.from_numpy(io["fake"]))
    torch.testing.assert_close(real, torch.from_numpy(io["mel_real"]), atol=1e-4, rtol=1e-4)
    assert 45 * float(losses.mel_l1(real, fake)) == pytest.approx(expected["mel_l1_x45"], rel=1e-5)


def test_parameter_count(discriminators):
    assert sum(p.numel() for p in discriminators.parameters()) == pytest.approx(70.7e6, rel=2e-3)


def test_mel_l1_counts_only_the_frames_given():
    real, fake = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    fake[0, :, 3] = 100  # behind the first row's two frames
    fake[1, :, 0] = 6
    assert float(losses.mel_l1(real, fake, torch.tensor([2, 1]))) == pytest.approx(6 * 3 / 9)


def test_hand_worked_losses():
    real, fake = [torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.5, 0.0]])]
    assert float(losses.discriminator_loss(real, fake)) == pytest.approx(0.5 + 0.125)
    assert float(losses.generator_loss(fake)) == pytest.approx((0.25 + 1) / 2)
    maps = [[torch.tensor([1.0, 3.0])], [torch.tensor([2.0])]]
    zeros = [[torch.zeros(2)], [torch.zeros(1)]]
    assert float(losses.feature_matching_loss(maps, zeros)) == pytest.approx(2 + 2)
