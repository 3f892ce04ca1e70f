"""The VQ-VAE of content units with a HiFi-GAN as its decoder, as a fairseq model."""

from dataclasses import dataclass, field
from typing import Any, Dict

from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.models.unit_hifigan import UnitHifiganConfig, build_generator, parse_sizes
from fairseq_resynth.modules.quantizers.content_vqvae import ContentVqvae


@dataclass
class ContentVqvaeConfig(UnitHifiganConfig):
    """Sizes of encoder, codebook and decoder; the defaults are the paper's."""

    encoder_width: int = field(
        default=32, metadata={"help": "channels of the encoder's convolutions"}
    )
    codebook_decay: float = field(
        default=0.99, metadata={"help": "decay of the codebook's running means, in [0, 1)"}
    )
    dead_code_threshold: float = field(
        default=1.0,
        metadata={"help": "uses a step (running mean) below which a code restarts at random"},
    )
    num_codes: int = II("task.num_codes")
    encoder_strides: str = II("task.encoder_strides")


def build_content_vqvae(cfg: ContentVqvaeConfig) -> ContentVqvae:
    """Builds encoder and codebook.

    Raises:
        ValueError: a size that is not positive, a decay outside [0, 1).
    """
    if not 0 <= cfg.codebook_decay < 1:
        raise ValueError(f"--codebook-decay is {cfg.codebook_decay}, expected 0 <= decay < 1.")
    strides = parse_sizes(cfg.encoder_strides, "encoder-strides")
    if cfg.num_codes < 1 or cfg.encoder_width < 1 or min(strides) < 1:
        raise ValueError("--num-codes, --encoder-width and --encoder-strides must be positive.")
    return ContentVqvae(
        cfg.num_codes,
        cfg.embedding_dim,
        cfg.encoder_width,
        strides,
        cfg.codebook_decay,
        cfg.dead_code_threshold,
    )


@register_model("content_vqvae", dataclass=ContentVqvaeConfig)
class ContentVqvaeModel(BaseFairseqModel):
    """Speech to units and back; the decoder works on the codes' vectors, and knows no speaker."""

    def __init__(self, content_vqvae: ContentVqvae, generator):
        super().__init__()
        self.content_vqvae = content_vqvae
        self.generator = generator
        self._commitment = None

    @classmethod
    def build_model(cls, cfg: ContentVqvaeConfig, task) -> "ContentVqvaeModel":
        """Builds the model."""
        content_vqvae = build_content_vqvae(cfg)
        streams = StreamSpec(content_vqvae.stride, cfg.num_codes)
        # Its table of units is the codebook, which the VQ-VAE has already.
        return cls(content_vqvae, build_generator(cfg, streams).generator)

    def forward(self, wav: Tensor) -> Tensor:
        """Encodes, quantises and decodes (B, 1, T), T a multiple of the stride."""
        quantised, _, self._commitment = self.content_vqvae(wav)
        return self.generator(quantised)

    def auxiliary_losses(self, net_input: Dict[str, Any]) -> Dict[str, Tensor]:
        """Returns {"commitment"}: of the last forward."""
        return {"commitment": self._commitment}
