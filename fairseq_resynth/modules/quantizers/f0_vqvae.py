"""The F0 quantizer: a VQ-VAE on the F0 of an utterance (Polyak et al., 2021, section 2.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fairseq_resynth.modules.options import option
from fairseq_resynth.modules.quantizers.vector_quantizer import VectorQuantizer

DILATIONS = (1, 3, 9, 27)
F0_INPUTS = {"zscore": 1, "log_voicing": 2}  # channels of each representation


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
    logit. Raises ValueError if a size is not positive, the input unknown or the decay outside [0, 1).

    Attributes:
        num_codes: number of codes in the codebook.
        channels: channels of the input and of the reconstruction.
        stride: F0 frames per code, 2**num_downsamples.
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
