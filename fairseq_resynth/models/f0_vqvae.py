"""The F0 VQ-VAE as a fairseq model."""

from dataclasses import dataclass
from typing import Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from fairseq_resynth.modules.options import sizes_from
from fairseq_resynth.modules.quantizers.f0_vqvae import F0Vqvae, F0VqvaeSizes


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
