"""Waveform generators in the memory layout and precision that they run fastest in."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.modules.hifigan import HifiganGenerator

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class ChannelsLastConv(nn.Module):
    """A one-dimensional convolution over (B, C, 1, L) whose channels lie side by side in memory.

    oneDNN's kernels read that layout as it is: the (B, C, L) of `Conv1d` is reordered before and after each
    layer, which took a quarter of V1's time in float32 and nearly half in bfloat16.

    Args:
        layer: the convolution, plain or transposed, without groups; weight norm folded away.
    """

    def __init__(self, layer: nn.Conv1d | nn.ConvTranspose1d):
        super().__init__()
        weight = layer.weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", layer.bias.detach(), persistent=False)
        self.transposed = isinstance(layer, nn.ConvTranspose1d)
        self.sizes = {"stride": (1, layer.stride[0]), "padding": (0, layer.padding[0])}
        self.sizes["dilation"] = (1, layer.dilation[0])

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, 1, L) to (B, C', 1, L')."""
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        return convolve(x, self.weight, self.bias, **self.sizes)


class InferenceGenerator(nn.Module):
    """A copy of a waveform generator that only generates.

    Args:
        generator: maps (B, C, L) frames to (B, 1, L * hop) samples; weight norm folded away.
        precision: `float32` leaves the weights as they are; `bfloat16` halves them and their time on a
            processor with AMX.
        channels_last: lays HiFi-GAN's channels side by side, which pays on the CPU.

    Attributes:
        hop: samples a frame.
        context_frames: frames on either side of a sample that it looks at.
    """

    def __init__(
        self, generator: nn.Module, precision: str = "float32", channels_last: bool = True
    ):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}: expected {' or '.join(PRECISIONS)}.")
        self.hop, self.context_frames = generator.hop, generator.context_frames
        # None: there is no pitch whose phase goes on from chunk to chunk
        self.pitch_context_frames = getattr(generator, "pitch_context_frames", None)
        self.dtype = PRECISIONS[precision]
        self.channels_last = channels_last and isinstance(generator, HifiganGenerator)
        self.generator = copy.deepcopy(generator)
        if self.dtype is not None:
            for parameter in self.generator.parameters():
                parameter.data = parameter.data.to(self.dtype)
        if self.channels_last:
            _replace_convolutions(self.generator)

    def forward(self, x: Tensor, lengths: Tensor | None = None, **source: Any) -> Tensor:
        """Generates (B, 1, L * hop) float32 samples; see `HifiganGenerator.forward`.

        Args:
            x: (B, C, L) frames.
            lengths: (B,) frames of each row.
            source: see `SourceFilterGenerator.forward`.
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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tells whether bfloat16 is faster than float32 there: any GPU, or a processor with AMX."""
    return device.type != "cpu" or torch.cpu._is_amx_tile_supported()
