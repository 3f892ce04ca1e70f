"""The F0 VQ-VAE as a fairseq model."""

from dataclasses import dataclass, field
from typing import Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from fairseq_resynth.modules.quantizers.f0_vqvae import F0Vqvae

F0_INPUTS = {"zscore": 1, "log_voicing": 2}  # channels


@dataclass
class F0VqvaeConfig(FairseqDataclass):
    """Sizes of the quantiser; the defaults are the paper's."""

    num_codes: int = field(default=20, metadata={"help": "size of the codebook"})
    code_dim: int = field(default=128, metadata={"help": "dimensions of a code"})
    width: int = field(default=32, metadata={"help": "channels of the convolutions"})
    num_downsamples: int = field(
        default=4, metadata={"help": "stride-2 stages; 4 take 200 Hz F0 to 12.5 Hz codes"}
    )
    f0_input: str = field(
        default="zscore",
        metadata={
            "help": "zscore: the paper's, unvoiced frames at 0 as those at the mean are; log_voicing: "
            "log-F0 interpolated over unvoiced frames, and a voicing flag"
        },
    )
    codebook_decay: float = field(
        default=0.99, metadata={"help": "decay of the codebook's running means, in [0, 1)"}
    )
    dead_code_threshold: float = field(
        default=1.0,
        metadata={"help": "uses a step (running mean) below which a code restarts at random"},
    )


def build_f0_vqvae(cfg: F0VqvaeConfig) -> F0Vqvae:
    """Builds the plain torch module for a configuration.

    Raises:
        ValueError: a size that is not positive, a decay outside [0, 1).
    """
    for name in ("num_codes", "code_dim", "width", "num_downsamples"):
        if getattr(cfg, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(cfg, name)}, expected at least 1."
            )
    if cfg.f0_input not in F0_INPUTS:
        raise ValueError(f"--f0-input is {cfg.f0_input!r}, expected {' or '.join(F0_INPUTS)}.")
    if not 0 <= cfg.codebook_decay < 1:
        raise ValueError(f"--codebook-decay is {cfg.codebook_decay}, expected 0 <= decay < 1.")
    return F0Vqvae(
        cfg.num_codes,
        cfg.code_dim,
        cfg.width,
        cfg.num_downsamples,
        cfg.codebook_decay,
        cfg.dead_code_threshold,
        F0_INPUTS[cfg.f0_input],
    )


@register_model("f0_vqvae", dataclass=F0VqvaeConfig)
class F0VqvaeModel(BaseFairseqModel):
    """fairseq's wrapper of `F0Vqvae`."""

    def __init__(self, f0_vqvae: F0Vqvae):
        super().__init__()
        self.f0_vqvae = f0_vqvae

    @classmethod
    def build_model(cls, cfg: F0VqvaeConfig, task) -> "F0VqvaeModel":
        """Builds the model; its sizes do not depend on the task."""
        return cls(build_f0_vqvae(cfg))

    def forward(self, f0: Tensor, mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
        """Returns (reconstruction, codes, commitment loss); see `F0Vqvae.forward`."""
        return self.f0_vqvae(f0, mask)
