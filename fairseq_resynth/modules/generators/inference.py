"""Waveform generators in the memory layout and precision in which they run fastest."""

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, ResBlocks

# Wider stages gain nothing, since their convolutions compute more than they read.
TILED_CHANNELS = 32
TILE_VALUES = 2**18  # values of a tensor: 1 MB in float32
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class ChannelsLastConv(nn.Module):
    """A convolution in time on (B, C, 1, L) with the channels next to each other in memory.

    oneDNN's kernels read that layout directly. The (B, C, L) of `Conv1d` is reordered before and after each
    layer, which took a quarter of V1's time in float32 and nearly half in bfloat16. `layer` is plain or
    transposed, without groups, and its weight norm is folded away.
    """

    def __init__(self, layer: nn.Conv1d | nn.ConvTranspose1d):
        super().__init__()
        weight = layer.weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", layer.bias.detach(), persistent=False)
        self.transposed = isinstance(layer, nn.ConvTranspose1d)
        self.sizes = {
            "stride": (1, layer.stride[0]),
            "padding": (0, layer.padding[0]),
            "dilation": (1, layer.dilation[0]),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, 1, L) to (B, C', 1, L')."""
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        return convolve(x, self.weight, self.bias, **self.sizes)


class TiledResBlocks(nn.Module):
    """The residual blocks of a stage on one span of time after the other, each small enough for the cache. A
    span of `positions` is computed with those around it on which it depends, so only rounding differs."""

    def __init__(self, blocks: ResBlocks, positions: int):
        super().__init__()
        self.blocks, self.positions = blocks, positions

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, C, 1, L) to (B, C, 1, L)."""
        length = x.size(-1)
        spans = -(-length // self.positions)
        if spans == 1:
            return self.blocks(x, mask)
        mean = torch.zeros_like(x)
        edges = [length * span // spans for span in range(spans + 1)]
        # One row at a time: a span of a row is contiguous in memory, of a batch it is not.
        masks = [None] * len(x) if mask is None else mask.split(1)
        for out, row, row_mask in zip(mean.split(1), x.split(1), masks, strict=True):
            for start, stop in itertools.pairwise(edges):
                for block in self.blocks:
                    first, last = max(start - block.reach, 0), stop + block.reach
                    part_mask = None if row_mask is None else row_mask[..., first:last]
                    part = block(row[..., first:last], part_mask)
                    out[..., start:stop] += part[..., start - first : stop - first]
        return mean.div_(len(self.blocks))


class InferenceGenerator(nn.Module):
    """A copy of a waveform generator, with its weight norm folded away, that only generates.

    In `bfloat16` the weights take half the size, and the time on a processor with AMX. `channels_last` puts
    HiFi-GAN's channels next to each other in memory and computes its late stages span by span, which is
    faster on a CPU. `hop`, `context_frames` and `pitch_context_frames` are those of the generator; the last
    is None for generators without a pulse source.
    """

    def __init__(
        self, generator: nn.Module, precision: str = "float32", channels_last: bool = True
    ):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}: expected {' or '.join(PRECISIONS)}.")
        self.hop, self.context_frames = generator.hop, generator.context_frames
        self.pitch_context_frames = getattr(generator, "pitch_context_frames", None)
        self.dtype = PRECISIONS[precision]
        self.channels_last = channels_last and isinstance(generator, HifiganGenerator)
        self.generator = copy.deepcopy(generator)
        if self.dtype is not None:
            for parameter in self.generator.parameters():
                parameter.data = parameter.data.to(self.dtype)
        if self.channels_last:
            _replace_convolutions(self.generator)
            for stage, blocks in enumerate(self.generator.resblocks):
                channels = self.generator.upsamples[stage].bias.numel()
                if channels <= TILED_CHANNELS:
                    tiled = TiledResBlocks(blocks, TILE_VALUES // channels)
                    self.generator.resblocks[stage] = tiled

    def forward(self, x: Tensor, lengths: Tensor | None = None, **source: Any) -> Tensor:
        """Maps frames (B, C, L), with (B,) frames of each row, to (B, 1, L * hop) float32 samples.

        `source` is `source_f0` and `clock` of `SourceFilterGenerator.forward`.
        """
        x = x.to(self.dtype or x.dtype)
        if not self.channels_last:
            return self.generator(x, lengths, **source).float()
        x = x[:, :, None].contiguous(memory_format=torch.channels_last)
        return self.generator(x, lengths)[:, :, 0].float()


def _replace_convolutions(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv1d | nn.ConvTranspose1d):
            setattr(module, name, ChannelsLastConv(child))
        else:
            _replace_convolutions(child)


def slow_bfloat16(device: torch.device) -> str | None:
    """The reason why bfloat16 is slow on a device; None for a GPU or a processor with AMX or AVX-512 BF16."""
    if device.type != "cpu" or torch.cpu._is_amx_tile_supported():
        return None
    if torch.cpu._is_avx512_bf16_supported():
        return None
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        return (  # measured: 42 times, with 256 channels and kernel 7
            "this processor has no AVX-512, and torch's convolutions in bfloat16 take tens of times longer "
            "than in float32"
        )
    return "this processor computes bfloat16 no faster than float32"


def usable_device(name: str | torch.device) -> torch.device:
    """The device of that name. Raises ValueError if it is unknown, or this machine does not have it."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # torch lists all of its backends
        raise ValueError(
            f"--device {name} cannot be used here, expected cpu, cuda, cuda:1, …: {reason}"
        ) from error
    return device
