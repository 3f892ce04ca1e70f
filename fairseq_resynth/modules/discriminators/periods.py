"""HiFi-GAN's multi-period discriminator (Kong et al., 2020, arXiv 2010.05646, section 2.3)."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fairseq_resynth.modules.discriminators.base import Discriminator, DiscriminatorFamily, scaled

PERIODS = (2, 3, 5, 7, 11)  # samples
PERIOD_CHANNELS = (32, 128, 512, 1024, 1024)


class PeriodDiscriminator(Discriminator):
    """Takes the samples that are `period` apart as the columns of an image of (T / period, period).

    Args:
        period: in samples.
        width: factor on the published channels.
    """

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
        return wav.view(wav.size(0), 1, wav.size(2) // self.period, self.period)


def period_discriminators(width: float = 1.0) -> DiscriminatorFamily:
    """Builds the discriminators of periods of 2, 3, 5, 7 and 11 samples."""
    return DiscriminatorFamily([PeriodDiscriminator(period, width) for period in PERIODS])
