"""The generator of HiFi-GAN (Kong et al., 2020, arXiv 2010.05646) on frames of any conditioning."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from fairseq_resynth.modules.masks import frame_mask, masked
from fairseq_resynth.modules.options import option, option_integers

LEAKY_RELU_SLOPE = 0.1
LARGEST_RATE = 8  # of an upsampling stage


@dataclass
class HifiganSizes:
    """Sizes of `HifiganGenerator`; the defaults are HiFi-GAN V1's."""

    upsample_rates: str = option(
        "",
        "factor of each upsampling stage, as 5,4,4,2,2; the product is the samples per frame and divides "
        "the hop of every stream; empty: chosen by the greatest common divisor of the hops",
    )
    upsample_kernel_sizes: str = option(
        "", "kernel size of each upsampling stage in samples of its output, as 11,8,8,4,4"
    )
    upsample_initial_channel: int = option(
        512, "channels before the first upsampling stage; each stage halves them"
    )
    resblock_kernel_sizes: str = option(
        "3,7,11", "kernel sizes of the residual blocks after each stage"
    )
    resblock_dilation_sizes: str = option(
        "1,3,5;1,3,5;1,3,5", "dilations of each of these residual blocks"
    )
    activation: str = option(
        "leaky-relu",
        "activation before each convolution: leaky-relu, the paper's, or snake, which is periodic with a "
        "period learned for each channel (BigVGAN)",
    )


class ResBlock(nn.Module):
    """HiFi-GAN's resblock "1": pairs of convolutions of one odd kernel size, the first with a dilation of
    `dilations`. An output depends on `reach` positions on either side."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int], activation: str):
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (kernel_size - 1) // 2
            layer = nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
            return weight_norm(layer)

        self.dilated = nn.ModuleList([conv(dilation) for dilation in dilations])
        self.plain = nn.ModuleList([conv(1) for _ in dilations])
        self.reach = sum(map(_reach, [*self.dilated, *self.plain]))
        # In place where nothing else needs the tensor: those of the late stages do not fit into the cache.
        self.activations = nn.ModuleList(
            make_activation(activation, channels, LEAKY_RELU_SLOPE, in_place=index % 2 == 1)
            for index in range(2 * len(dilations))
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) to (B, C, L); `mask` (B, 1, L) zeroes what follows each row's end."""
        for index, (dilated, plain) in enumerate(zip(self.dilated, self.plain, strict=True)):
            before, between = self.activations[2 * index], self.activations[2 * index + 1]
            residual = masked(dilated(before(x)), mask)
            x = masked(plain(between(residual)), mask).add_(x)
        return x


class ResBlocks(nn.ModuleList):
    """The parallel residual blocks of a stage."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) to the mean (B, C, L) of the blocks; `mask` as for `ResBlock.forward`."""
        return sum(block(x, mask) for block in self) / len(self)


class HifiganGenerator(nn.Module):
    """Upsamples frames to samples.

    Weights keep torch's default initialization, as in the published code, whose own initialization its weight
    norm overwrites at once. `default_hop`, the samples per frame, chooses the upsampling if `sizes` has none.
    A frame has `hop` samples, the product of the upsampling rates, and a sample depends on at most
    `context_frames` frames on either side. Raises ValueError if the sizes cannot be read or do not fit.
    """

    def __init__(self, in_channels: int, sizes: HifiganSizes | None = None, default_hop: int = 320):
        super().__init__()
        sizes = sizes or HifiganSizes()
        self.upsample_rates, kernels = _upsampling(sizes, default_hop)
        block_sizes = _residual_blocks(sizes)
        channels, stages = sizes.upsample_initial_channel, len(kernels)
        if channels % 2**stages:
            raise ValueError(
                f"upsample_initial_channel {channels} cannot be halved {stages} times: "
                f"expected a multiple of {2**stages}."
            )
        self.hop = math.prod(self.upsample_rates)
        self.conv_pre = weight_norm(nn.Conv1d(in_channels, channels, 7, padding=3))
        self.upsamples, self.resblocks, self.activations = (nn.ModuleList() for _ in range(3))
        for rate, kernel in zip(self.upsample_rates, kernels, strict=True):
            layer = nn.ConvTranspose1d(
                channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2
            )
            self.activations.append(make_activation(sizes.activation, channels, LEAKY_RELU_SLOPE))
            self.upsamples.append(weight_norm(layer))
            channels //= 2
            blocks = [ResBlock(channels, *block, sizes.activation) for block in block_sizes]
            self.resblocks.append(ResBlocks(blocks))
        # The published generator leaves the slope of the last activation at torch's default.
        self.activations.append(make_activation(sizes.activation, channels, 0.01))
        self.conv_post = weight_norm(nn.Conv1d(channels, 1, 7, padding=3))
        self.context_frames = self._context_frames()

    def _context_frames(self) -> int:
        """Counted from the kernels: half the kernel times the dilation for each convolution, plus the spread
        of the transposed convolutions. 22 frames for HiFi-GAN V1, whose output really depends on 20."""
        reach = _reach(self.conv_post)
        for upsample, blocks in zip(self.upsamples[::-1], self.resblocks[::-1], strict=True):
            reach += max(block.reach for block in blocks)
            reach = -(-(reach + upsample.kernel_size[0] - 1) // upsample.stride[0])
        return reach + _reach(self.conv_pre)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) frames to (B, 1, L * hop) samples in [-1, 1]; with another dimension of size 1
        before L inside `InferenceGenerator`.

        `lengths` (B,) are the frames of each row of a padded batch. The output after them is 0, and a row is
        what it is alone.
        """
        mask = frame_mask(x, lengths)
        x = masked(self.conv_pre(masked(x, mask)), mask)
        *activations, last = self.activations
        for rate, activation, upsample, blocks in zip(
            self.upsample_rates, activations, self.upsamples, self.resblocks, strict=True
        ):
            if mask is not None:
                mask = mask.repeat_interleave(rate, dim=-1)
            x = blocks(masked(upsample(activation(x)), mask), mask)
        return masked(torch.tanh(self.conv_post(last(x))), mask)

    def remove_weight_norm(self) -> None:
        """Folds weight norm into plain weights, for inference."""
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")


def _reach(layer: nn.Conv1d) -> int:
    return layer.dilation[0] * (layer.kernel_size[0] // 2)


def default_upsampling(hop: int) -> tuple[list[int], list[int]]:
    """The rates and the kernel sizes of the upsampling stages for frames of `hop` samples.

    Of all stacks of five stages (four up to 80 samples) with rates of 2 to 8, the one with the smallest sum
    of rates, the largest first; of fewer stages if the hop has too few factors. A kernel spans two strides,
    and one sample more if the rate is odd. For 320 and 160 samples, this is the paper's upsampling. Raises
    ValueError if no such stack has that product.
    """
    if stacks := _possible_stacks(hop):
        rates = min(stacks, key=lambda stack: (sum(stack), stack))
        return rates, [2 * rate + rate % 2 for rate in rates]
    others = sorted(range(hop // 2, 2 * hop), key=lambda other: abs(other - hop))
    possible = sorted(itertools.islice(filter(_possible_stacks, others), 2))
    raise ValueError(
        f"no stack of up to five strides of 2 to {LARGEST_RATE} makes frames of {hop} samples: expected "
        f"another hop, {' or '.join(map(str, possible))} for instance, or give --upsample-rates and "
        "--upsample-kernel-sizes; the product of the rates must divide the hop of every stream."
    )


def _possible_stacks(hop: int) -> list[list[int]]:
    """Every stack for `hop` of five stages (four up to 80 samples), or else of fewer."""
    every = (_stacks(hop, stages, LARGEST_RATE) for stages in range(5 if hop > 80 else 4, 0, -1))
    return next(filter(None, every), [])


def _stacks(hop: int, stages: int, largest: int) -> list[list[int]]:
    """Every stack of so many rates from `largest` down to 2, the largest first, with the product `hop`."""
    if not stages:
        return [[]] if hop == 1 else []
    return [
        [rate, *rest]
        for rate in range(2, largest + 1)
        if hop % rate == 0
        for rest in _stacks(hop // rate, stages - 1, rate)
    ]


def _upsampling(sizes: HifiganSizes, default_hop: int) -> tuple[list[int], list[int]]:
    """The rate and the kernel of each upsampling stage."""
    texts = sizes.upsample_rates, sizes.upsample_kernel_sizes
    if not any(texts):
        return default_upsampling(default_hop)
    if not all(texts):
        raise ValueError("give --upsample-rates and --upsample-kernel-sizes together.")
    rates, kernels = map(option_integers, texts, ("upsample-rates", "upsample-kernel-sizes"))
    if len(rates) != len(kernels):
        raise ValueError(
            f"{len(rates)} upsample rates, {len(kernels)} kernels: expected equal numbers."
        )
    for rate, kernel in zip(rates, kernels, strict=True):
        if kernel < rate or (kernel - rate) % 2:
            raise ValueError(
                f"upsample kernel {kernel} at rate {rate}: expected the rate plus an even number."
            )
    return rates, kernels


def _residual_blocks(sizes: HifiganSizes) -> list[tuple[int, list[int]]]:
    """The kernel and the dilations of each residual block of a stage."""
    kernels = option_integers(sizes.resblock_kernel_sizes, "resblock-kernel-sizes")
    texts = sizes.resblock_dilation_sizes.split(";")
    if len(kernels) != len(texts):
        raise ValueError(
            f"{len(kernels)} resblock kernel sizes, {len(texts)} lists of dilations: expected equal numbers."
        )
    dilations = [option_integers(text, "resblock-dilation-sizes") for text in texts]
    return list(zip(kernels, dilations, strict=True))


ACTIVATIONS = ("leaky-relu", "snake")


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha with an alpha learned per channel: periodic, as voiced speech is.

    Ziyin et al., 2020, arXiv 2006.08195, equation 3; used in a vocoder by BigVGAN (Lee et al., 2022, arXiv
    2206.04658), whose filters against aliasing are left out. alpha starts at 1 and stays positive, since its
    logarithm is learned.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, ...) to the same shape and precision; computes the sine of 16-bit values in float32."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        alpha = self.log_alpha.to(wide.dtype).exp().view(-1, *[1] * (x.ndim - 2))
        return (wide + (alpha * wide).sin().square() / alpha).to(x.dtype)


def make_activation(name: str, channels: int, slope: float, in_place: bool = False) -> nn.Module:
    """Builds the activation of that name; a leaky ReLU has `slope` below 0 and may overwrite its input.
    Raises ValueError if the name is unknown."""
    if name not in ACTIVATIONS:
        raise ValueError(f"--activation is {name!r}, expected {' or '.join(ACTIVATIONS)}.")
    return Snake(channels) if name == "snake" else nn.LeakyReLU(slope, in_place)
