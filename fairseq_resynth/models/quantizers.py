"""The VQ-VAEs of F0 and of content units as fairseq models."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor, nn

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.architectures import build_vocoder
from fairseq_resynth.modules.options import sizes_from
from fairseq_resynth.modules.quantizers import (
    ContentVqvae,
    ContentVqvaeSizes,
    F0Vqvae,
    F0VqvaeSizes,
    build_content_vqvae,
)


@dataclass
class F0VqvaeConfig(F0VqvaeSizes, FairseqDataclass):
    """`F0VqvaeSizes` as fairseq's options."""


@register_model("f0_vqvae", dataclass=F0VqvaeConfig)
class F0VqvaeModel(BaseFairseqModel):
    """fairseq's wrapper of `F0Vqvae`."""

    def __init__(self, f0_vqvae: F0Vqvae):
        super().__init__()
        self.f0_vqvae = f0_vqvae

    @classmethod
    def build_model(cls, cfg: F0VqvaeConfig, task) -> "F0VqvaeModel":
        """Builds the model; its sizes do not depend on the task."""
        return cls(F0Vqvae(sizes_from(F0VqvaeSizes, cfg)))

    def forward(self, f0: Tensor, mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
        """Returns (reconstruction, codes, commitment loss), as `F0Vqvae.forward` describes them."""
        return self.f0_vqvae(f0, mask)


@dataclass
class ContentVqvaeConfig(ContentVqvaeSizes, FairseqDataclass):
    """`ContentVqvaeSizes` as fairseq's options; two of them are the task's, which needs them for its data."""

    num_codes: int = II("task.num_codes")
    encoder_strides: str = II("task.encoder_strides")


@register_model("content_vqvae", dataclass=ContentVqvaeConfig)
class ContentVqvaeModel(BaseFairseqModel):
    """Speech to units and back; the decoder takes the codes' vectors and no speaker."""

    def __init__(self, content_vqvae: ContentVqvae, generator: nn.Module):
        super().__init__()
        self.content_vqvae = content_vqvae
        self.generator = generator
        self._commitment = None

    # why a step cannot be recorded as a CUDA graph
    unrecordable = "the codebook looks for unused codes on the processor in each step"

    @property
    def waveform_generator(self) -> nn.Module:
        """The network that --compile compiles: frames to samples."""
        return self.generator

    @classmethod
    def build_model(cls, cfg: ContentVqvaeConfig, task) -> "ContentVqvaeModel":
        """Builds encoder, codebook and decoder."""
        sizes = sizes_from(ContentVqvaeSizes, cfg)
        content_vqvae = build_content_vqvae(sizes)
        streams = StreamSpec(content_vqvae.stride, sizes.num_codes)
        # The vocoder's table of units is left out: it is the codebook, which the VQ-VAE has already.
        return cls(content_vqvae, build_vocoder(sizes, streams).generator)

    def forward(self, wav: Tensor) -> Tensor:
        """Encodes, quantizes and decodes (B, 1, T), T a multiple of the stride."""
        quantized, _, self._commitment = self.content_vqvae(wav)
        return self.generator(quantized)

    def auxiliary_losses(self, net_input: Dict[str, Any]) -> Dict[str, Tensor]:
        """The commitment loss of the last forward pass, as {"commitment"}."""
        return {"commitment": self._commitment}
