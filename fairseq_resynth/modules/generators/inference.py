"""Waveform generators in the memory layout and precision that they run fastest in."""

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, ResBlocks

TILED_CHANNELS = 32  # wider stages gain nothing: their convolutions compute more than they read
TILE_VALUES = 2**18  # of a tensor: 1 MB in float32
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


class TiledResBlocks(nn.Module):
    """A stage's residual blocks on one span of time after the other, each small enough for the cache.

    A span is computed with the positions around it that its outputs look at, so that only rounding differs.

    Args:
        blocks: of a stage; in place of `blocks(x, mask)`.
        positions: of a span, without those around it.
    """

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
        for row in range(x.size(0)):  # a row's span lies in one piece in memory, a batch's does not
            row_mask = None if mask is None else mask[row : row + 1]
            for start, stop in itertools.pairwise(edges):
                span = slice(start, stop)
                self._add(mean[row : row + 1, ..., span], x[row : row + 1], row_mask, span)
        return mean

    def _add(self, mean: Tensor, x: Tensor, mask: Tensor | None, span: slice) -> None:
        for block in self.blocks:
            first, last = max(span.start - block.reach, 0), span.stop + block.reach
            part = block(x[..., first:last], None if mask is None else mask[..., first:last])
            mean.add_(part[..., span.start - first : span.stop - first])
        mean.div_(len(self.blocks))


class InferenceGenerator(nn.Module):
    """A copy of a waveform generator that only generates.

    Args:
        generator: maps (B, C, L) frames to (B, 1, L * hop) samples; weight norm folded away.
        precision: `float32` leaves the weights as they are; `bfloat16` halves them and their time on a
            processor with AMX.
        channels_last: lays HiFi-GAN's channels side by side and computes its late stages span by span, which
            pays on the CPU.

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
            _tile(self.generator)

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


def _tile(generator: HifiganGenerator) -> None:
    for stage, blocks in enumerate(generator.resblocks):
        channels = generator.upsamples[stage].bias.numel()
        if channels <= TILED_CHANNELS:
            generator.resblocks[stage] = TiledResBlocks(blocks, TILE_VALUES // channels)


def slow_bfloat16(device: torch.device) -> str | None:
    """Says why bfloat16 is slow there; None for a GPU and a processor with AMX or AVX-512's bfloat16."""
    if device.type != "cpu" or torch.cpu._is_amx_tile_supported():
        return None
    if torch.cpu._is_avx512_bf16_supported():
        return None
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # 42 times: 256 channels, kernel 7
        return (
            "this processor has no AVX-512, and torch's convolutions in bfloat16 take tens of times longer "
            "than in float32 there"
        )
    return "this processor computes bfloat16 no faster than float32"


def usable_device(name: str | torch.device) -> torch.device:
    """Returns a device that this torch has.

    Raises:
        ValueError: an unknown one, or CUDA where there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: expected cpu, cuda, cuda:1, …") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this torch finds no CUDA device; use --device cpu.")
    return device
