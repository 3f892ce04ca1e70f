"""The VQ-VAE of content units: raw audio to codes (Polyak et al., 2021, section 2.1, "VQ-VAE")."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairseq_resynth.modules.architectures import UnitHifiganSizes
from fairseq_resynth.modules.options import option, parse_integers
from fairseq_resynth.modules.quantizers.f0_vqvae import Encoder
from fairseq_resynth.modules.quantizers.vector_quantizer import VectorQuantizer


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

    Attributes:
        num_codes: number of codes in the codebook, which is the number of units.
        stride: samples per unit; the default of 160 takes 16 kHz to 100 Hz.
        arguments: what it was built with, for a bundle.
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
    strides = parse_integers(sizes.encoder_strides, "encoder-strides")
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
