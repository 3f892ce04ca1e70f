"""The discriminators that the paper does not have, the hinge loss and the multi-scale mel distance."""

import librosa
import numpy as np
import pytest
import torch

from fairseq_resynth.modules import losses
from fairseq_resynth.modules.discriminators.base import DiscriminatorFamily, Discriminators
from fairseq_resynth.modules.discriminators.families import FAMILIES, build_discriminators
from fairseq_resynth.modules.discriminators.spectrograms import (
    BandDiscriminator,
    ComplexDiscriminator,
    MagnitudeDiscriminator,
    Stft,
)
from fairseq_resynth.modules.discriminators.waveforms import (
    PeriodDiscriminator,
    ScaleDiscriminators,
)
from fairseq_resynth.modules.losses import slaney_filters

SAMPLES = 8960
NEW = ["mrd", "msstft", "mbstft"]


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_default_is_the_papers_nets_bit_for_bit():
    torch.manual_seed(5)
    periods = DiscriminatorFamily([PeriodDiscriminator(p, 1 / 16) for p in (2, 3, 5, 7, 11)])
    families = {"periods": periods, "scales": ScaleDiscriminators(1 / 16)}
    paper = Discriminators(families).state_dict()
    torch.manual_seed(5)
    built = build_discriminators(width=1 / 16).state_dict()
    assert list(paper) == list(built)
    assert all(torch.equal(paper[name], built[name]) for name in paper)
    assert "periods.0.convs.0.parametrizations.weight.original0" in built
    assert "scales.0.convs.0.parametrizations.weight.original" in built


def test_names_come_in_one_order_whatever_order_they_are_given_in():
    one, other = (build_discriminators(names, 1 / 16) for names in ("mrd,mpd", " mpd, mrd"))
    assert list(one.state_dict()) == list(other.state_dict())
    assert [name for name, _ in one.named_children()] == ["periods", "magnitudes"]


@pytest.mark.parametrize(
    "text,message",
    [
        ("mpd,mds", r"'mds': expected some of mpd, msd, mrd, msstft, mbstft\."),
        ("", r"has '': expected some of mpd"),
        ("mrd,mpd,mrd", r"has 'mrd' twice"),
    ],
)
def test_other_names_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        build_discriminators(text)


def test_no_width_is_refused():
    with pytest.raises(ValueError, match="width is 0, expected a positive"):
        build_discriminators("mrd", 0)


# of each sub-discriminator on 8960 samples: (time, frequency) of the scores, and how many maps
SHAPES = {
    "mrd": [((75, 65), 6), ((38, 129), 6), ((180, 33), 6)],
    "msstft": [((18, 129), 6), ((36, 65), 6), ((71, 33), 6), ((141, 17), 6), ((281, 9), 6)],
    "mbstft": [((18, 130), 26), ((36, 66), 26), ((71, 34), 26)],
}


@pytest.mark.parametrize("name", NEW)
def test_scores_and_feature_maps(name):
    scores, maps = build_discriminators(name, 1 / 16)(noise(2, 1, SAMPLES))
    found = [(tuple(layers[-1].shape[2:]), len(layers)) for layers in maps]
    assert found == SHAPES[name]
    for score, layers in zip(scores, maps, strict=True):
        torch.testing.assert_close(score, layers[-1].flatten(1))
        assert {layer.size(1) for layer in layers[:-1]} == {2}  # 32 channels / 16


@pytest.mark.parametrize("name", NEW)
def test_gradients_reach_the_waveform_and_every_weight(name):
    discriminators = build_discriminators(name, 1 / 16)
    wav = noise(1, 1, SAMPLES).requires_grad_()
    scores, maps = discriminators(wav)
    losses.generator_loss(scores).backward()
    assert torch.isfinite(wav.grad).all()
    # the transforms see every sample; the magnitudes' windows taper to nothing at the edges
    assert (wav.grad != 0).float().mean() > 0.99
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminators.parameters())


@pytest.mark.parametrize("name", NEW)
def test_silence_has_finite_gradients(name):
    wav = torch.zeros(1, 1, SAMPLES, requires_grad=True)
    losses.generator_loss(build_discriminators(name, 1 / 16)(wav)[0]).backward()
    assert torch.isfinite(wav.grad).all()


@pytest.mark.parametrize("name", NEW)
def test_autocast_keeps_the_transforms_in_float32(name):
    discriminators, wav = build_discriminators(name, 1 / 16), noise(1, 1, SAMPLES)
    expected, _ = discriminators(wav)
    with torch.autocast("cpu", torch.bfloat16):
        found, maps = discriminators(wav.bfloat16().float())
    assert maps[0][0].dtype == torch.bfloat16
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other.float(), atol=0.05, rtol=0.1)


def test_published_sizes():
    """Channels and layers as published: parameters counted by hand, each weight norm adds its gains."""
    image = (2 * 27 * 32 + 3 * 32 * 32 * 27 + 32 * 32 * 9) + 5 * 2 * 32
    post = 32 * 9 + 1 + 1
    count = {name: sum(p.numel() for p in build_discriminators(name).parameters()) for name in NEW}
    assert count["mrd"] == 3 * (image - 27 * 32 + post)
    assert count["msstft"] == 5 * (image + post)
    assert count["mbstft"] == 3 * (5 * image + post)
    assert set(FAMILIES) == {"mpd", "msd", *NEW}


def test_stft_equals_librosa():
    wav = noise(1, 1, 4000)
    found = Stft(1024, 120, 600)(wav)[0].T.numpy()
    expected = librosa.stft(
        wav[0, 0].numpy(), n_fft=1024, hop_length=120, win_length=600, pad_mode="reflect"
    )
    scale = np.sqrt((librosa.filters.get_window("hann", 600) ** 2).sum())
    np.testing.assert_allclose(found, expected / scale, atol=1e-5)


def test_each_band_has_weights_of_its_own():
    """A tone in the third band, 2 to 4 kHz, changes that band's maps alone."""
    net = BandDiscriminator(1024, 1 / 16)
    assert net.edges == [(0, 51), (51, 128), (128, 256), (256, 384), (384, 513)]
    base, tone = torch.zeros(1, 1, SAMPLES), torch.zeros(1, 1, SAMPLES)
    base[..., 4480] = 1  # the same peak
    time = torch.arange(SAMPLES) / 16000
    tone = base + 0.5 * torch.sin(2 * torch.pi * 3000 * time) * torch.hann_window(SAMPLES)
    tone[..., 4480] = 1
    tone[..., 4470:4491] = base[..., 4470:4491]
    maps = [net(wav)[1] for wav in (base, tone)]
    change = [
        float((maps[1][6 * 0 + 5 * band] - maps[0][5 * band])[:, :, :14].abs().mean())
        for band in range(5)
    ]
    assert max(change) == change[2] and sorted(change)[-2] < 0.1 * change[2]


def test_band_discriminator_ignores_level_and_offset():
    net, wav = BandDiscriminator(512, 1 / 16), noise(1, 1, SAMPLES)
    torch.testing.assert_close(net(wav)[0], net(0.3 * wav + 0.1)[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "build,reach",
    [
        # frames on either side: 3 x 9 and 3 x 3 layers and the scores' one each, dilated ones 1, 2, 4
        (lambda: ComplexDiscriminator(512, 1 / 16), 1 + 1 + 2 + 4 + 1 + 1),
        (lambda: MagnitudeDiscriminator((512, 128, 512), 1 / 16), 1 + 1 + 1 + 1 + 1 + 1),
    ],
)
def test_a_score_sees_the_frames_around_it(build, reach):
    wav = noise(1, 1, SAMPLES).requires_grad_()
    net = build()
    image = net(wav)[1][-1]
    image[:, :, 35].sum().backward()
    seen = torch.nonzero(wav.grad[0, 0])[:, 0]
    low, high = (35 - reach) * 128 - 256, (35 + reach) * 128 + 256
    assert low <= int(seen.min()) < low + 8 and high - 8 < int(seen.max()) <= high


def test_hand_worked_hinge():
    real, fake = [torch.tensor([[2.0, 0.5]])], [torch.tensor([[-2.0, 0.0]])]
    discriminate, generate = losses.ADVERSARIAL_LOSSES["hinge"]
    assert float(discriminate(real, fake)) == pytest.approx((0 + 0.5) / 2 + (0 + 1) / 2)
    assert float(generate(fake)) == pytest.approx((3 + 1) / 2)
    assert float(discriminate(real * 2, fake * 2)) == pytest.approx(
        2 * 0.75
    )  # summed over discriminators


@pytest.mark.parametrize("sizes", [(16000, 1024, 80), (22050, 512, 96), (1500, 64, 8)])
def test_mel_filters_equal_librosas(sizes):
    rate, n_fft, bands = sizes
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands)
    np.testing.assert_allclose(slaney_filters(*sizes), expected, rtol=1e-6)


def test_mel_scales_equal_librosa():
    real, fake = noise(1, 1, SAMPLES), noise(1, 1, SAMPLES, seed=1)
    expected = []
    for window, bands, hop in losses.MEL_SCALES["multi"]:
        logs = []
        for wav in (real, fake):
            margin = (window - hop) // 2
            padded = np.pad(wav[0, 0].numpy(), margin, mode="reflect")
            mel = librosa.feature.melspectrogram(
                y=padded,
                sr=16000,
                n_fft=window,
                hop_length=hop,
                center=False,
                power=1,
                n_mels=bands,
            )
            logs.append(np.log(np.maximum(mel, 1e-5)))
        expected.append(np.abs(logs[0] - logs[1]).mean())
    found = losses.MelLoss(16000, losses.MEL_SCALES["multi"])(real, fake)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-3)
    windows = [(window, bands) for window, bands, _ in losses.MEL_SCALES["multi"]]
    assert windows == [
        (32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320)
    ]  # fmt: skip


def test_every_mel_band_has_a_filter():
    for log_mel in losses.MelLoss(16000, losses.MEL_SCALES["multi"]).log_mels:
        assert (log_mel.filters.sum(1) > 0).all()


def test_single_mel_is_the_papers():
    real, fake = noise(2, 1, SAMPLES), noise(2, 1, SAMPLES, seed=1)
    log_mel = losses.LogMelSpectrogram()
    found = losses.MelLoss(16000, losses.MEL_SCALES["single"])(real, fake)
    torch.testing.assert_close(found, losses.mel_l1(log_mel(real), log_mel(fake)))


@pytest.mark.parametrize("name", losses.MEL_SCALES)
def test_derivative_of_the_mel_distance_is_that_of_autograd(name):
    """Stretches of silence, where magnitudes are below the smallest that is counted, included."""
    distance = losses.MelLoss(16000, losses.MEL_SCALES[name])
    real, fake = noise(2, 1, SAMPLES), noise(2, 1, SAMPLES, seed=1)
    fake[:, :, 3000:6000] = 0
    fake.requires_grad_()
    plain = sum(losses.mel_l1(each(real), each(fake)) for each in distance.log_mels)
    found = distance(real, fake)
    torch.testing.assert_close(found, plain / len(distance.log_mels))
    (expected,) = torch.autograd.grad(3 * plain / len(distance.log_mels), fake)
    (gradient,) = torch.autograd.grad(3 * found, fake)
    torch.testing.assert_close(gradient, expected, atol=3e-6, rtol=1e-4)
    short = real[:, :, : distance.margin]  # too short to be padded by the largest margin
    assert distance(short, short).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_feature_matching_is_the_sum_of_means(dtype):
    sizes = [(2, 3, 7), (2, 5, 1), (2, 1, 11)]
    real, fake = ([[noise(*s, seed=n).to(dtype) for s in sizes]] * 2 for n in (0, 1))
    fake = [[each.clone().requires_grad_() for each in maps] for maps in fake]
    leaves = [each for maps in fake for each in maps]
    plain = sum(
        (f.float() - r.float()).abs().mean() for r, f in zip(real[0] * 2, leaves, strict=True)
    )
    found = losses.feature_matching_loss(real, fake)
    torch.testing.assert_close(found, plain)
    gradients = [torch.autograd.grad(2 * each, leaves) for each in (found, plain)]
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other)
