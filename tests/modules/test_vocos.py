"""The Vocos generator: its inverse STFT against torch's, padding, and how far it looks."""

import pytest
import torch

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.architectures import build_vocoder, default_sizes
from fairseq_resynth.modules.generators.vocos import InverseStftHead, VocosGenerator, VocosSizes


def make(hop=40, **sizes):
    torch.manual_seed(0)
    sizes = {"dim": 16, "intermediate_dim": 24, "num_layers": 2, **sizes}
    generator = VocosGenerator(6, VocosSizes(**sizes), hop).double().eval()
    for parameter in generator.parameters():  # at the initial scale distant frames hardly matter
        torch.nn.init.normal_(parameter, std=0.3)
    return generator


@torch.no_grad()
@pytest.mark.parametrize("factor", [2, 4])
def test_head_inverts_an_stft(factor):
    """Given the spectrum of noise as magnitude and phase, it returns the noise, to its very ends."""
    hop, frames = 41 * 2, 12
    n_fft = factor * hop
    wav = torch.randn(1, frames * hop)
    margin = (n_fft - hop) // 2
    padded = torch.nn.functional.pad(wav, (margin, margin))
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    head = InverseStftHead(n_fft + 2, n_fft, hop)
    head.lines = torch.nn.Identity()
    lines = torch.cat([spectrum.abs().clamp(min=1e-12).log(), spectrum.angle()], dim=1)
    torch.testing.assert_close(head(lines.transpose(1, 2))[:, 0], wav, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padded_batch_gives_each_row_what_it_gives_alone():
    generator, lengths = make(), [5, 30, 17]
    frames = torch.randn(3, 6, 30, dtype=torch.float64)
    wav = generator(frames, torch.tensor(lengths))
    assert wav.shape == (3, 1, 1200)
    for row, length in enumerate(lengths):
        alone = generator(frames[row : row + 1, :, :length])
        torch.testing.assert_close(wav[row : row + 1, :, : length * 40], alone, atol=1e-10, rtol=0)
        assert not wav[row, :, length * 40 :].any()
    assert wav.abs().max() > 0.01


def test_looks_as_far_as_it_says():
    generator = make()
    assert generator.context_frames == 3 * 3 + 2
    frames = torch.randn(1, 6, 61, dtype=torch.float64, requires_grad=True)
    generator.train()(frames)[0, 0, 30 * 40 : 31 * 40].sum().backward()
    seen = frames.grad.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert (seen[0], seen[-1]) == (30 - 11, 30 + 11)


def test_is_bounded_in_evaluation_and_not_in_training():
    generator = make()
    with torch.no_grad():
        generator.head.lines.bias += 3
        frames = torch.randn(1, 6, 20, dtype=torch.float64)
        assert generator(frames).abs().max() == 1
        assert generator.train()(frames).abs().max() > 1


def test_windows_that_do_not_fit():
    for n_fft in (100, 40, 42):
        with pytest.raises(ValueError, match="expected a multiple of the hop.*160 for instance"):
            make(n_fft=n_fft)


def test_sizes_of_the_two_presets():
    def millions(generator):
        return sum(parameter.numel() for parameter in generator.parameters()) / 1e6

    assert 13 < millions(VocosGenerator(384)) < 15
    assert millions(VocosGenerator(192, VocosSizes(256, 768, 5))) < 3


@pytest.mark.parametrize("arch", ["unit_hifigan", "unit_vocos_small", "unit_source_filter_small"])
def test_continuous_f0_fits_a_frame_of_every_generator_by_default(arch):
    streams = StreamSpec(320, 10, f0_channels=2)
    model = build_vocoder(default_sizes(arch), streams).eval()
    wav = model(torch.zeros(1, 3, dtype=torch.int64), f0=torch.zeros(1, 2, 12))
    assert wav.shape == (1, 1, 960)
