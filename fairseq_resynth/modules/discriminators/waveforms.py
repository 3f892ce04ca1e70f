"""HiFi-GAN's discriminators (Kong et al., 2020, arXiv 2010.05646, section 2.3): periods and scales."""

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from fairseq_resynth.modules.discriminators.base import (
    Discriminator,
    DiscriminatorFamily,
    Output,
    scaled,
)

PERIODS = (2, 3, 5, 7, 11)  # samples
PERIOD_CHANNELS = (32, 128, 512, 1024, 1024)
# (channels, kernel, stride, groups) of each layer
SCALE_LAYERS = (
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)


class PeriodDiscriminator(Discriminator):
    """Takes the samples that are `period` apart as the columns of an image of (T / period, period)."""

    def __init__(self, period: int, width: float = 1.0):
        layers, before = [], 1
        for index, channels in enumerate(PERIOD_CHANNELS):
            stride, after = 3 if index < 4 else 1, scaled(channels, width)
            conv = nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0))
            layers.append(weight_norm(conv))
            before = after
        super().__init__(layers, weight_norm(nn.Conv2d(before, 1, (3, 1), padding=(1, 0))))
        self.period = period

    def prepare(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T) to (B, 1, ceil(T / period), period), reflection padded."""
        wav = F.pad(wav, (0, -wav.size(2) % self.period), "reflect")
        return wav.view(wav.size(0), 1, -1, self.period)


class ScaleDiscriminator(Discriminator):
    """Strided convolutions over the waveform; `norm` is weight norm or spectral norm."""

    def __init__(self, norm=weight_norm, width: float = 1.0):
        layers, before = [], 1
        for channels, kernel, stride, groups in SCALE_LAYERS:
            after = scaled(channels, width)
            groups = math.gcd(groups, before, after)  # fewer where narrow layers cannot be divided
            conv = nn.Conv1d(before, after, kernel, stride, padding=kernel // 2, groups=groups)
            layers.append(norm(conv))
            before = after
        super().__init__(layers, norm(nn.Conv1d(before, 1, 3, padding=1)))


class ScaleDiscriminators(DiscriminatorFamily):
    """Three discriminators, each at half the sample rate of the one before (MelGAN: Kumar et al., 2019)."""

    def __init__(self, width: float = 1.0):
        norms = (spectral_norm, weight_norm, weight_norm)
        super().__init__([ScaleDiscriminator(norm, width) for norm in norms])

    def forward(self, wav: Tensor) -> list[Output]:
        """Maps (B, 1, T) to the output of each discriminator."""
        outputs = []
        for index, discriminator in enumerate(self):
            if index:
                wav = F.avg_pool1d(wav, 4, 2, padding=2)
            outputs.append(discriminator(wav))
        return outputs
