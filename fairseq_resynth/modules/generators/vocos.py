"""Vocos's generator (Siuzdak, 2023, arXiv 2306.00814): a ConvNeXt backbone and an inverse-STFT head.

Everything except the final inverse Fourier transform runs at the frame rate, which is why it needs about a
tenth of HiFi-GAN's arithmetic.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.modules.masks import frame_mask, masked
from fairseq_resynth.modules.options import option

KERNEL_SIZE = 7
MAX_MAGNITUDE = 100.0  # of a spectral bin: keeps exp from overflowing early in training
MIN_ENVELOPE = 1e-6
FRAME_SIZES = (16, 320)  # samples: the shortest and the longest frame that is chosen by default


@dataclass
class BackboneSizes:
    """Sizes of `ConvNextBackbone`; the defaults are Vocos's."""

    dim: int = option(512, "channels of the backbone")
    intermediate_dim: int = option(1536, "channels inside the backbone's blocks")
    num_layers: int = option(8, "number of blocks of the backbone")


@dataclass
class VocosSizes(BackboneSizes):
    """Sizes of `VocosGenerator`; the defaults are Vocos's."""

    frame_hop: int = option(
        0,
        "samples per frame, which divide the hop of every stream; 0: the largest even number up to 320 "
        "that does",
    )
    n_fft: int = option(0, "samples of a spectrum's window; 0: four times those of a frame")


class ConvNextBlock(nn.Module):
    """Depthwise convolution, then a two-layer perceptron on each frame (Liu et al., 2022).

    `intermediate_dim` channels lie between the two layers; `scale` is the initial factor on the residual.
    """

    def __init__(self, dim: int, intermediate_dim: int, scale: float):
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, intermediate_dim)
        self.reduce = nn.Linear(intermediate_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) to (B, C, L); `mask` (B, 1, L) zeroes what follows each row's end."""
        residual = self.norm(self.depthwise(x).transpose(1, 2))
        residual = self.reduce(F.gelu(self.expand(residual)))
        return masked(torch.addcmul(x, residual.transpose(1, 2), self.scale[:, None]), mask)


class ConvNextBackbone(nn.Module):
    """ConvNeXt blocks from frames to frames; the base of generators with a spectral head.

    An output frame depends on `backbone_context` frames on either side. Raises ValueError if windows of
    `n_fft` samples are not a multiple of the hop or do not overlap, or their middle falls between samples.
    """

    def __init__(self, in_channels: int, sizes: BackboneSizes, hop: int, n_fft: int):
        super().__init__()
        if hop % 2:
            raise ValueError(
                f"the frame is {hop} samples: expected an even number. `unit_hifigan` takes odd ones."
            )
        if n_fft % hop or n_fft < 2 * hop or (n_fft - hop) % 2:
            raise ValueError(
                f"the window is {n_fft} samples and the hop {hop}: expected a multiple of the hop, at "
                f"least twice as long, {4 * hop} for instance."
            )
        self.hop = hop
        dim, count = sizes.dim, sizes.num_layers
        self.embed = nn.Conv1d(in_channels, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            [ConvNextBlock(dim, sizes.intermediate_dim, 1 / count) for _ in range(count)]
        )
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        self.backbone_context = (count + 1) * (KERNEL_SIZE // 2)

    def backbone(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Maps (B, in_channels, L) to (B, L, dim); `mask` (B, 1, L) zeroes what follows each row's end."""
        x = self.norm(self.embed(masked(x, mask)).transpose(1, 2)).transpose(1, 2)
        x = masked(x, mask)
        for block in self.blocks:
            x = block(x, mask)
        return self.final_norm(x.transpose(1, 2))

    def remove_weight_norm(self) -> None:
        """Does nothing, since there is none; every generator has this method."""


class InverseStftHead(nn.Module):
    """Predicts magnitude and phase of every bin of a spectrum, and overlap-adds the windowed frames.

    A frame is in the middle of its window of `n_fft` samples, so that L frames give L * hop samples.
    """

    def __init__(self, dim: int, n_fft: int, hop: int):
        super().__init__()
        self.hop = hop
        self.lines = nn.Linear(dim, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, L, C) frames to (B, 1, L * hop) samples; in float32 after the linear layer. Frames after a
        row's end, where `mask` (B, 1, L) is 0, add neither sound nor window."""
        log_magnitude, phase = self.lines(x).float().chunk(2, dim=2)
        spectrum = polar(log_magnitude, phase)
        return inverse_stft(spectrum, self.window, self.hop, mask, MIN_ENVELOPE)


def polar(log_magnitude: Tensor, phase: Tensor) -> Tensor:
    """Complex numbers of log magnitudes, clamped to `MAX_MAGNITUDE`, and phases in radians."""
    magnitude = log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
    return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())


def inverse_stft(
    spectrum: Tensor, window: Tensor, hop: int, mask: Tensor | None, min_envelope: float
) -> Tensor:
    """Maps spectra (B, L, n_fft / 2 + 1) to (B, 1, L * hop) samples; frames where `mask` is 0 give none."""
    frames = torch.fft.irfft(spectrum, len(window), dim=2) * window
    weight = torch.ones_like(frames[:, :, :1]) if mask is None else mask.float().transpose(1, 2)
    envelope = overlap_add(weight * window**2, hop).clamp(min=min_envelope)
    wav = (overlap_add(frames * weight, hop) / envelope)[:, None]
    return wav if mask is None else wav * mask.float().repeat_interleave(hop, dim=2)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Adds windows (B, L, n_fft) at steps of `hop` and keeps the middle (B, L * hop) samples."""
    parts = frames.split(hop, dim=2)
    total = sum(
        F.pad(part, (0, 0, index, len(parts) - 1 - index)) for index, part in enumerate(parts)
    )
    margin = (frames.size(2) - hop) // 2
    return total.flatten(1)[:, margin : margin + frames.size(1) * hop]


class VocosGenerator(ConvNextBackbone):
    """Frames of any conditioning to samples, in place of `HifiganGenerator`.

    A frame has `hop` samples: `frame_size(default_hop)` if `sizes` does not say how many. A sample depends
    on `context_frames` frames on either side.
    """

    def __init__(self, in_channels: int, sizes: VocosSizes | None = None, default_hop: int = 320):
        sizes = sizes or VocosSizes()
        hop = sizes.frame_hop or frame_size(default_hop, FRAME_SIZES[1])
        n_fft = sizes.n_fft or 4 * hop
        super().__init__(in_channels, sizes, hop, n_fft)
        self.context_frames = self.backbone_context + -(-(n_fft - hop) // (2 * hop))
        self.head = InverseStftHead(sizes.dim, n_fft, hop)
        self.apply(initialize)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) frames to (B, 1, L * hop) samples, in [-1, 1] in evaluation mode only.

        The output after `lengths` (B,) frames of a row is 0, and a row of a padded batch is what it is alone.
        """
        mask = frame_mask(x, lengths)
        wav = self.head(self.backbone(x, mask), mask)
        return wav if self.training else wav.clamp(-1, 1)


def frame_size(hop: int, longest: int) -> int:
    """The largest even divisor, up to `longest`, of a hop that is common to the streams. Raises ValueError if
    it has fewer than 16 samples; an odd hop has none and is returned, for the backbone to refuse."""
    found = max((size for size in range(2, longest + 1, 2) if hop % size == 0), default=hop)
    if found < FRAME_SIZES[0]:
        raise ValueError(
            f"no frame of {FRAME_SIZES[0]} to {longest} samples divides the streams' common hop of {hop} "
            "samples: expected another hop, or --frame-hop."
        )
    return found


def initialize(module: nn.Module) -> None:
    """Vocos's initialization: truncated normal with a standard deviation of 0.02, biases 0."""
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
