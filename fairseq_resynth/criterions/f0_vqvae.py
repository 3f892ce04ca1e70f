"""Loss of the F0 VQ-VAE: squared error of the normalized F0, and the commitment."""

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from fairseq_resynth.modules.options import option


@dataclass
class F0VqvaeCriterionConfig(FairseqDataclass):
    """Weights of the loss."""

    commitment_weight: float = option(0.02, "weight of the encoder's distance to its codes")


@register_criterion("f0_vqvae", dataclass=F0VqvaeCriterionConfig)
class F0VqvaeCriterion(FairseqCriterion):
    """Mean squared error + commitment_weight * commitment (Polyak et al., 2021, section 2.1).

    With log-F0 and voicing, the error counts voiced frames only and the voicing's cross-entropy is added.
    """

    def __init__(self, task, commitment_weight: float):
        super().__init__(task)
        self.commitment_weight = commitment_weight

    def forward(self, model, sample, reduce: bool = True):
        """(loss, sample size 1, logged terms); frames after a row's end do not count."""
        f0 = sample["target"]
        mask = sample["net_input"]["mask"]
        reconstruction, codes, commitment = model(**sample["net_input"])
        frames = mask.repeat_interleave(f0.size(2) // mask.size(1), dim=1)
        squared_error, voicing_error = _errors(reconstruction, f0, frames)
        loss = squared_error + voicing_error + self.commitment_weight * commitment
        counts = torch.bincount(codes[mask], minlength=model.f0_vqvae.num_codes).tolist()
        logged = {
            "loss": loss.detach(),
            "mse": squared_error.detach(),
            "commitment": commitment.detach(),
            "voicing": voicing_error.detach(),
            "sample_size": 1,
            "nsentences": f0.size(0),
            "ntokens": int(frames.sum()),
        }
        logged.update({f"code_{code}": count for code, count in enumerate(counts)})
        return loss, 1, logged

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Logs the terms, how many codes were used, and the entropy of the codes in bits."""
        batches = sum(log.get("sample_size", 0) for log in logging_outputs)
        for name in ("loss", "mse", "commitment", "voicing"):
            total = float(sum(log.get(name, 0) for log in logging_outputs))
            metrics.log_scalar(name, total / max(batches, 1), max(batches, 1), round=5)
        names = [name for name in logging_outputs[0] if name.startswith("code_")]
        counts = [sum(log.get(name, 0) for log in logging_outputs) for name in names]
        for name, count in zip(names, counts, strict=True):
            metrics.log_scalar_sum(f"_{name}", int(count))
        metrics.log_derived("codes_used", lambda meters: int((_counts(meters) > 0).sum()))
        metrics.log_derived(
            "code_entropy", lambda meters: round(_entropy_in_bits(_counts(meters)), 3)
        )

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True, since every term is a sum or a count."""
        return True


def _errors(reconstruction: Tensor, f0: Tensor, frames: Tensor) -> Tuple[Tensor, Tensor]:
    """The squared error of F0 and the cross-entropy of the voicing, 0 for a model without voicing."""
    error = ((reconstruction[:, 0] - f0[:, 0]) ** 2)[frames]
    if f0.size(1) == 1:
        return error.mean(), error.new_zeros(())
    voicing = f0[:, 1][frames]
    cross_entropy = F.binary_cross_entropy_with_logits(reconstruction[:, 1][frames], voicing)
    # F0 of unvoiced frames is interpolated, so it need not be reconstructed
    return (error * voicing).sum() / voicing.sum().clamp(min=1), cross_entropy


def _entropy_in_bits(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _counts(meters) -> np.ndarray:
    return np.array([meters[name].sum for name in meters if name.startswith("_code_")])
