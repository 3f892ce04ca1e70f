"""Discriminators over the constant-Q transform, octave by octave (Gu et al., 2024, arXiv 2311.14957).

Theirs see music at 24 kHz, doubled to 48 kHz, in nine octaves from 32.7 Hz. These see speech at its own rate
in the seven octaves below half of it: from 62.5 Hz at 16 kHz, which is where voices begin.
"""

import warnings

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fairseq_resynth.modules.discriminators.spectrograms import (
    IMAGE_SLOPE,
    SpectrogramDiscriminators,
    image_layers,
    score_layer,
    thin,
)
from fairseq_resynth.modules.discriminators.waveforms import Judgement, judge

OCTAVES = 7
# (bins an octave, hop in samples): the published bins, and hops of 16 and 8 ms near theirs of 10.7 and 5.3 ms
RESOLUTIONS = ((24, 256), (36, 128), (48, 128))


class ConstantQ(nn.Module):
    """Complex constant-Q transform as one convolution an octave, with librosa's filters.

    Args:
        sample_rate: Hz.
        bins_per_octave: bins.
        hop: samples between frames, which are centred; outside of the waveform it is zero.

    Attributes:
        frequencies: (OCTAVES * bins_per_octave,) Hz, rising.
    """

    def __init__(self, sample_rate: int, bins_per_octave: int, hop: int):
        super().__init__()
        self.hop = hop
        lowest = sample_rate / 2 ** (OCTAVES + 1)
        bins = np.arange(OCTAVES * bins_per_octave)
        self.frequencies = lowest * 2 ** (bins / bins_per_octave)
        for octave, group in enumerate(np.split(self.frequencies, OCTAVES)):
            kernels = _kernels(group, sample_rate)
            self.register_buffer(f"octave_{octave}", kernels, persistent=False)

    def forward(self, wav: Tensor) -> list[Tensor]:
        """Maps (B, 1, T) to float32 (B, 2, T // hop + 1, bins_per_octave), real and imaginary, by octave."""
        octaves = []
        with torch.autocast(wav.device.type, enabled=False):
            for octave in range(OCTAVES):
                kernels = self.get_buffer(f"octave_{octave}")
                padding = kernels.size(2) // 2
                response = F.conv1d(wav.float(), kernels, stride=self.hop, padding=padding)
                octaves.append(response.unflatten(1, (2, -1)).transpose(2, 3))
        return octaves


def _kernels(frequencies: np.ndarray, sample_rate: int) -> Tensor:
    """Returns (2 * bins, 1, even length) kernels, over the square root of their length as librosa.cqt's."""
    spacing = frequencies[1] / frequencies[0]
    alpha = (spacing**2 - 1) / (spacing**2 + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the highest bin's skirt lies above half the sample rate
        filters, lengths = librosa.filters.wavelet(
            freqs=frequencies,
            sr=sample_rate,
            pad_fft=False,
            alpha=np.full(len(frequencies), alpha),
        )
    # convolutions do not conjugate, and a spectrum's filters do
    filters = np.conj(filters) * np.sqrt(lengths)[:, None]
    # librosa's filters are centred on the sample behind their middle: that of an even length
    filters = np.pad(filters, ((0, 0), (0, filters.shape[1] % 2)))
    stacked = np.concatenate([filters.real, filters.imag]).astype(np.float32)
    return torch.from_numpy(stacked)[:, None]


class ConstantQDiscriminator(nn.Module):
    """Each octave through a convolution of its own, then all octaves through shared ones.

    Args:
        sample_rate: Hz.
        bins_per_octave: bins.
        hop: samples between frames.
        width: factor on the published channels.
    """

    def __init__(self, sample_rate: int, bins_per_octave: int, hop: int, width: float = 1.0):
        super().__init__()
        self.transform = ConstantQ(sample_rate, bins_per_octave, hop)
        octaves = [nn.Conv2d(2, 2, (3, 9), padding=(1, 4)) for _ in range(OCTAVES)]
        self.octaves = nn.ModuleList([weight_norm(conv) for conv in octaves])
        self.convs = image_layers(2, thin(width), (1, 2, 4))
        self.conv_post = score_layer(thin(width))

    def forward(self, wav: Tensor) -> Judgement:
        """Judges (B, 1, T)."""
        pairs = zip(self.octaves, self.transform(wav), strict=True)
        image = torch.cat([conv(octave) for conv, octave in pairs], dim=3)
        return judge(image, self.convs, self.conv_post, IMAGE_SLOPE)


def constant_q_discriminators(
    width: float = 1.0, sample_rate: int = 16000
) -> SpectrogramDiscriminators:
    """Builds the three resolutions."""
    nets = [ConstantQDiscriminator(sample_rate, *sizes, width) for sizes in RESOLUTIONS]
    return SpectrogramDiscriminators(nets)
