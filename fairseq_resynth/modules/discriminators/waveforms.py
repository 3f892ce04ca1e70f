"""HiFi-GAN's discriminators (Kong et al., 2020): one waveform in, scores and feature maps out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

LEAKY_RELU_SLOPE = 0.1
PERIODS = (2, 3, 5, 7, 11)
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

# scores (B, n), and the activations of every layer: what the losses compare
Judgement = tuple[Tensor, list[Tensor]]


def judge(
    x: Tensor, convs: nn.ModuleList, conv_post: nn.Module, slope: float = LEAKY_RELU_SLOPE
) -> Judgement:
    """Runs a waveform or image (B, C, ...) through the layers of one sub-discriminator.

    Args:
        x: input.
        convs: layers, a leaky ReLU behind each.
        conv_post: layer of the scores, without activation.
        slope: of the leaky ReLU.
    """
    feature_maps = []
    for conv in convs:
        x = F.leaky_relu(conv(x), slope)
        feature_maps.append(x)
    x = conv_post(x)
    feature_maps.append(x)
    return x.flatten(1), feature_maps


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample side by side, as an image of (T / period, period).

    Args:
        period: in samples.
        width: factor on the paper's channels.
    """

    def __init__(self, period: int, width: float = 1.0):
        super().__init__()
        self.period = period
        channels = [1] + [max(1, round(c * width)) for c in PERIOD_CHANNELS]
        self.convs = nn.ModuleList()
        for layer, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            stride = 3 if layer < 4 else 1
            conv = nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0))
            self.convs.append(weight_norm(conv))
        self.conv_post = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: Tensor) -> Judgement:
        """Judges (B, 1, T)."""
        batch, channels, samples = wav.shape
        wav = F.pad(wav, (0, -samples % self.period), "reflect")
        image = wav.view(batch, channels, wav.size(2) // self.period, self.period)
        return judge(image, self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Strided convolutions over the waveform.

    Args:
        norm: weight norm or spectral norm.
        width: factor on the paper's channels.
    """

    def __init__(self, norm=weight_norm, width: float = 1.0):
        super().__init__()
        self.convs = nn.ModuleList()
        before = 1
        for channels, kernel, stride, groups in SCALE_LAYERS:
            after = max(1, round(channels * width))
            groups = math.gcd(groups, math.gcd(before, after))
            conv = nn.Conv1d(before, after, kernel, stride, padding=kernel // 2, groups=groups)
            self.convs.append(norm(conv))
            before = after
        self.conv_post = norm(nn.Conv1d(before, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> Judgement:
        """Judges (B, 1, T)."""
        return judge(wav, self.convs, self.conv_post)


class PeriodDiscriminators(nn.ModuleList):
    """HiFi-GAN's multi-period discriminator: periods of 2, 3, 5, 7 and 11 samples.

    Args:
        width: factor on the paper's channels.
    """

    def __init__(self, width: float = 1.0):
        super().__init__([PeriodDiscriminator(period, width) for period in PERIODS])

    def forward(self, wav: Tensor) -> list[Judgement]:
        """Judges (B, 1, T)."""
        return [period(wav) for period in self]


class ScaleDiscriminators(nn.ModuleList):
    """HiFi-GAN's multi-scale discriminator: three, each at half the rate of the one before.

    Args:
        width: factor on the paper's channels.
    """

    def __init__(self, width: float = 1.0):
        norms = (spectral_norm, weight_norm, weight_norm)
        super().__init__([ScaleDiscriminator(norm, width) for norm in norms])

    def forward(self, wav: Tensor) -> list[Judgement]:
        """Judges (B, 1, T)."""
        judgements = []
        for index, scale in enumerate(self):
            if index:
                wav = F.avg_pool1d(wav, 4, 2, padding=2)
            judgements.append(scale(wav))
        return judgements


class Discriminators(nn.Module):
    """Families of discriminators that judge the same waveform.

    Args:
        families: attribute name to module; each maps (B, 1, T) to a list of judgements.
    """

    def __init__(self, families: dict[str, nn.Module]):
        super().__init__()
        for name, family in families.items():
            self.add_module(name, family)

    def forward(self, wav: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Judges a waveform.

        Args:
            wav: (B, 1, T) samples.

        Returns:
            (scores, feature_maps): for each sub-discriminator its scores (B, n), near 1 for real speech,
            and the list of its layers' activations.
        """
        judgements = [judgement for family in self.children() for judgement in family(wav)]
        scores, feature_maps = zip(*judgements, strict=True)
        return list(scores), list(feature_maps)


class HifiganDiscriminators(Discriminators):
    """The paper's: five period discriminators and three scale discriminators.

    Args:
        width: factor on the paper's channels; 1 gives its 70.7 M parameters.
    """

    def __init__(self, width: float = 1.0):
        check_width(width)
        families = {"periods": PeriodDiscriminators(width), "scales": ScaleDiscriminators(width)}
        super().__init__(families)


def check_width(width: float) -> None:
    """Refuses a factor on the discriminators' channels that is not positive.

    Raises:
        ValueError: the factor.
    """
    if width <= 0:
        raise ValueError(f"the discriminators' width is {width}, expected a positive factor.")


def freeze(module: nn.Module, frozen: bool) -> None:
    """Turns the gradients of all parameters off (frozen) or on."""
    for parameter in module.parameters():
        parameter.requires_grad_(not frozen)


def detach(feature_maps: list[list[Tensor]]) -> list[list[Tensor]]:
    """Returns feature maps without their graph."""
    return [[feature_map.detach() for feature_map in maps] for maps in feature_maps]


def split_batch(
    scores: list[Tensor], feature_maps: list[list[Tensor]]
) -> tuple[tuple[list[Tensor], list[list[Tensor]]], tuple[list[Tensor], list[list[Tensor]]]]:
    """Splits the judgement of torch.cat([real, fake]) into that of real and that of fake."""
    halves = [torch.chunk(score, 2) for score in scores]
    maps = [[torch.chunk(feature_map, 2) for feature_map in layer] for layer in feature_maps]
    real = [half[0] for half in halves], [[pair[0] for pair in layer] for layer in maps]
    fake = [half[1] for half in halves], [[pair[1] for pair in layer] for layer in maps]
    return real, fake
