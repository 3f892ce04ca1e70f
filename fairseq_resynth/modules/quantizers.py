"""VQ-VAEs of F0 and of content units (Polyak et al., 2021, section 2.1), and their vector quantizer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.modules.architectures import UnitHifiganSizes
from fairseq_resynth.modules.options import option, option_integers

DILATIONS = (1, 3, 9, 27)
F0_INPUTS = {"zscore": 1, "log_voicing": 2}  # channels of each representation


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, D) of all processes, in an order that does not depend on which process had which row."""
    if _is_distributed():
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        longest = int(max(counts))
        padded = F.pad(rows, (0, 0, 0, longest - len(rows)))
        parts = [torch.zeros_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        rows = torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])
    return rows[torch.argsort(rows[:, 0])]


class VectorQuantizer(nn.Module):
    """Nearest-neighbor quantizer whose codes follow a running mean of the vectors that they quantize (van den
    Oord et al., 2017, appendix A).

    A code that is used less than `threshold` times per step (running mean) restarts at a random vector of
    the batch (Jukebox, Dhariwal et al., 2020). Everything that a resumed training needs is a buffer.
    """

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, threshold: float = 1.0):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"--codebook-decay is {decay}, expected 0 <= decay < 1.")
        self.decay, self.threshold = decay, threshold
        # Whether the vectors of this process count in the codebook. False for the dummy batches by which
        # fairseq keeps a process without data in step with the others.
        self.counts_batches = True
        self.register_buffer("codebook", torch.zeros(num_codes, dim))
        self.register_buffer("running_sum", torch.zeros(num_codes, dim))
        self.register_buffer("running_count", torch.ones(num_codes))
        # a float, as --store-ema averages every tensor of a model
        self.register_buffer("num_steps", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        """Maps vectors (B, D, F) to the nearest codes (B, F) int64."""
        rows = x.transpose(1, 2).flatten(0, 1)
        distances = (
            (rows**2).sum(1, keepdim=True) - 2 * rows @ self.codebook.T + (self.codebook**2).sum(1)
        )
        return distances.argmin(1).view(x.size(0), x.size(2))

    def decode(self, codes: Tensor) -> Tensor:
        """Maps codes (B, F) to their vectors (B, D, F)."""
        return F.embedding(codes, self.codebook).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes vectors (B, D, F); in training mode also moves the codebook.

        `mask` (B, F) is True for vectors that count; None: all. Returns (quantized (B, D, F), which passes
        gradients straight through; codes (B, F) int64; commitment loss, the mean squared distance of the
        vectors that count to their codes).
        """
        if mask is None:
            mask = torch.ones(x.size(0), x.size(2), dtype=torch.bool, device=x.device)
        counted = mask if self.counts_batches else torch.zeros_like(mask)
        rows = x.detach().transpose(1, 2)[counted]
        if self.training and self.num_steps == 0:
            self._restart(torch.ones_like(self.running_count, dtype=torch.bool), rows)
        codes = self.encode(x.detach())
        quantized = self.decode(codes)
        commitment = ((x - quantized) ** 2).mean(1)[mask].mean()
        if self.training:
            self._update(rows, codes[counted])
        return x + (quantized - x).detach(), codes, commitment

    @torch.no_grad()
    def _update(self, rows: Tensor, codes: Tensor) -> None:
        one_hot = F.one_hot(codes, len(self.codebook)).to(rows.dtype)
        totals = torch.cat([one_hot.T @ rows, one_hot.sum(0)[:, None]], dim=1)
        if _is_distributed():
            dist.all_reduce(totals)
        if not totals[:, -1].any():  # nothing but dummy batches, in every process
            return
        self.num_steps += 1
        self.running_sum.lerp_(totals[:, :-1], 1 - self.decay)
        self.running_count.lerp_(totals[:, -1], 1 - self.decay)
        self.codebook.copy_(self.running_sum / self.running_count[:, None].clamp(min=1e-9))
        dead = self.running_count < self.threshold
        # Gathering the rows is the expensive part. Every process decides alike whether to take part in it,
        # since the running counts come from the sums over all processes and are equal everywhere.
        if dead.any():
            self._restart(dead, rows)

    @torch.no_grad()
    def _restart(self, dead: Tensor, rows: Tensor) -> None:
        rows = _gather_rows(rows)
        if not len(rows):
            return
        # Seeded by the step, a buffer: processes agree, and a resumed run draws what it would have drawn.
        generator = torch.Generator().manual_seed(int(self.num_steps))
        draws = torch.randint(len(rows), (len(dead),), generator=generator)
        if len(rows) >= len(dead):
            draws = torch.randperm(len(rows), generator=generator)[: len(dead)]
        candidates = rows[draws.to(rows.device)]
        self.codebook[dead] = candidates[dead]
        if self.num_steps == 0:
            self.running_sum.copy_(self.codebook)


@dataclass
class F0VqvaeSizes:
    """Sizes of `F0Vqvae`; the defaults are the paper's."""

    num_codes: int = option(20, "number of codes in the codebook")
    code_dim: int = option(128, "dimensions of a code")
    width: int = option(32, "channels of the convolutions")
    num_downsamples: int = option(4, "stages of stride 2; 4 take F0 at 200 Hz to codes at 12.5 Hz")
    f0_input: str = option(
        "zscore",
        "zscore: the paper's, unvoiced frames are 0 as those at the mean are; log_voicing: log-F0 "
        "interpolated over unvoiced frames, and a voicing flag",
    )
    codebook_decay: float = option(0.99, "decay of the codebook's running means, in [0, 1)")
    dead_code_threshold: float = option(
        1.0, "uses per step (running mean) below which a code restarts at a random vector"
    )


class ResidualBlock(nn.Module):
    """x + conv1(ReLU(conv3(ReLU(x)))), the inner convolution dilated (Jukebox, Dhariwal et al., 2020)."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, L) to (B, C, L)."""
        return x + self.layers(x)


def _residual_blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualBlock(channels, dilation) for dilation in DILATIONS])


class Encoder(nn.Module):
    """Convolutions of `width` channels that divide the frame rate by each stride in turn."""

    def __init__(self, in_channels: int, dim: int, width: int, strides: Sequence[int]):
        super().__init__()
        self.downsamples = nn.ModuleList()
        for stage, stride in enumerate(strides):
            odd = stride % 2  # an odd kernel centers the windows of an odd stride on its frames
            channels, kernel = width if stage else in_channels, 2 * stride + odd
            conv = nn.Conv1d(channels, width, kernel, stride, padding=stride // 2 + odd)
            self.downsamples.append(nn.Sequential(conv, _residual_blocks(width)))
        self.out = nn.Conv1d(width, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, N), N a multiple of the strides' product P, to (B, dim, N / P)."""
        for downsample in self.downsamples:
            x = downsample(x)
        return self.out(x)


class Decoder(nn.Module):
    """The inverse of `Encoder`; its last upsampling widens to `dim` channels, as the original's does."""

    def __init__(self, out_channels: int, dim: int, width: int, num_upsamples: int):
        super().__init__()
        self.pre = nn.Conv1d(dim, width, 3, padding=1)
        self.upsamples = nn.ModuleList()
        for stage in range(num_upsamples):
            after = dim if stage == num_upsamples - 1 else width
            conv = nn.ConvTranspose1d(width, after, 4, stride=2, padding=1)
            self.upsamples.append(nn.Sequential(_residual_blocks(width), conv))
        self.out = nn.Conv1d(dim, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, dim, F) to (B, out_channels, F * 2**num_upsamples)."""
        x = self.pre(x)
        for upsample in self.upsamples:
            x = upsample(x)
        return self.out(x)


class F0Vqvae(nn.Module):
    """VQ-VAE on normalized F0; the default sizes are the paper's.

    Its input has one channel, the paper's z-score, or two, log-F0 and voicing, whose reconstruction is a
    logit. A code spans `stride` F0 frames, 2**num_downsamples. Raises ValueError if a size is not positive,
    the input unknown or the decay outside [0, 1).
    """

    def __init__(self, sizes: F0VqvaeSizes | None = None):
        super().__init__()
        sizes = sizes or F0VqvaeSizes()
        for name in ("num_codes", "code_dim", "width", "num_downsamples"):
            if (value := getattr(sizes, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {value}, expected at least 1.")
        if sizes.f0_input not in F0_INPUTS:
            raise ValueError(
                f"--f0-input is {sizes.f0_input!r}, expected {' or '.join(F0_INPUTS)}."
            )
        self.num_codes = sizes.num_codes
        self.channels = F0_INPUTS[sizes.f0_input]
        self.stride = 2**sizes.num_downsamples
        net = (self.channels, sizes.code_dim, sizes.width)
        self.encoder = Encoder(*net, (2,) * sizes.num_downsamples)
        self.quantizer = VectorQuantizer(
            sizes.num_codes, sizes.code_dim, sizes.codebook_decay, sizes.dead_code_threshold
        )
        self.decoder = Decoder(*net, sizes.num_downsamples)

    def forward(self, f0: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes, quantizes and decodes normalized F0 (B, channels, N), N a multiple of `stride`.

        `mask` (B, N / stride) is True for codes that count; None: all. Returns (reconstruction
        (B, channels, N), codes (B, N / stride) int64, commitment loss).
        """
        quantized, codes, commitment = self.quantizer(self.encoder(f0), mask)
        return self.decoder(quantized), codes, commitment

    def encode(self, f0: Tensor) -> Tensor:
        """Maps normalized F0 (B, channels, N) to codes (B, N / stride) int64; ValueError if N is not a
        multiple of `stride`."""
        if f0.size(2) % self.stride:
            raise ValueError(f"{f0.size(2)} F0 frames: expected a multiple of {self.stride}.")
        return self.quantizer.encode(self.encoder(f0))

    def decode(self, codes: Tensor) -> Tensor:
        """Maps codes (B, F) to normalized F0 (B, channels, F * stride)."""
        return self.decoder(self.quantizer.decode(codes))


@dataclass
class ContentVqvaeSizes(UnitHifiganSizes):
    """Sizes of `ContentVqvae` and of the HiFi-GAN that decodes it; the defaults are the paper's."""

    encoder_width: int = option(32, "channels of the encoder's convolutions")
    codebook_decay: float = option(0.99, "decay of the codebook's running means, in [0, 1)")
    dead_code_threshold: float = option(
        1.0, "uses per step (running mean) below which a code restarts at a random vector"
    )
    num_codes: int = option(256, "number of codes in the codebook, which is the number of units")
    encoder_strides: str = option(
        "2,2,2,2,2,5", "strides of the encoder's stages; the product is the samples per unit"
    )


class ContentVqvae(nn.Module):
    """Encoder and codebook of content units; the decoder is a vocoder that is trained with them.

    The codes are the units, of `stride` samples each; the default of 160 takes 16 kHz to 100 Hz. `arguments`
    are those of the constructor, for a bundle.
    """

    def __init__(
        self,
        num_codes: int = 256,
        dim: int = 128,
        width: int = 32,
        strides: Sequence[int] = (2, 2, 2, 2, 2, 5),
        decay: float = 0.99,
        threshold: float = 1.0,
    ):
        super().__init__()
        sizes = {"num_codes": num_codes, "dim": dim, "width": width, "strides": list(strides)}
        self.arguments = {**sizes, "decay": decay, "threshold": threshold}
        self.num_codes = num_codes
        self.stride = math.prod(strides)
        self.encoder = Encoder(1, dim, width, strides)
        self.quantizer = VectorQuantizer(num_codes, dim, decay, threshold)

    def forward(self, wav: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes and quantizes (B, 1, T) samples, T a multiple of `stride`; in training moves the codebook.

        `mask` (B, T / stride) is True for codes that count; None: all. Returns (quantized
        (B, dim, T / stride), codes (B, T / stride) int64, commitment loss).
        """
        self._check(wav)
        encoded = self.encoder(wav)
        # Nearest codes and running means need float32 under autocast too.
        with torch.autocast(wav.device.type, enabled=False):
            return self.quantizer(encoded.float(), mask)

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T) samples, T a multiple of `stride`, to units (B, T / stride) int64."""
        self._check(wav)
        return self.quantizer.encode(self.encoder(wav))

    def _check(self, wav: Tensor) -> None:
        if wav.size(2) % self.stride:
            raise ValueError(f"{wav.size(2)} samples: expected a multiple of {self.stride}.")


def build_content_vqvae(sizes: ContentVqvaeSizes) -> ContentVqvae:
    """Builds the encoder and the codebook. Raises ValueError if a size is not positive or the decay outside
    [0, 1)."""
    strides = option_integers(sizes.encoder_strides, "encoder-strides")
    if sizes.num_codes < 1 or sizes.encoder_width < 1 or min(strides) < 1:
        raise ValueError("--num-codes, --encoder-width and --encoder-strides must be positive.")
    return ContentVqvae(
        sizes.num_codes,
        sizes.embedding_dim,
        sizes.encoder_width,
        strides,
        sizes.codebook_decay,
        sizes.dead_code_threshold,
    )
