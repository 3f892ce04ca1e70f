"""Loss of the F0 VQ-VAE: squared error of the normalised F0 and the commitment."""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics


@dataclass
class F0VqvaeCriterionConfig(FairseqDataclass):
    """Weights of the loss."""

    commitment_weight: float = field(
        default=0.02, metadata={"help": "weight of the encoder's distance to its codes"}
    )


@register_criterion("f0_vqvae", dataclass=F0VqvaeCriterionConfig)
class F0VqvaeCriterion(FairseqCriterion):
    """Mean squared error + commitment_weight * commitment (Polyak et al., 2021, section 2.1)."""

    def __init__(self, task, commitment_weight: float):
        super().__init__(task)
        self.commitment_weight = commitment_weight

    def forward(self, model, sample, reduce: bool = True):
        """Returns (loss, sample size 1, logged terms); frames behind a row's end count nowhere."""
        f0 = sample["target"]
        mask = sample["net_input"]["mask"]
        reconstruction, codes, commitment = model(**sample["net_input"])
        frames = mask.repeat_interleave(f0.size(2) // mask.size(1), dim=1)
        squared_error = ((reconstruction - f0) ** 2)[:, 0][frames].mean()
        loss = squared_error + self.commitment_weight * commitment
        num_codes = self.task.num_codes(model)
        counts = torch.bincount(codes[mask], minlength=num_codes).tolist()
        logged = {
            "loss": loss.detach(),
            "mse": squared_error.detach(),
            "commitment": commitment.detach(),
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
        for name in ("loss", "mse", "commitment"):
            total = sum(log.get(name, 0) for log in logging_outputs)
            metrics.log_scalar(name, total / max(batches, 1), max(batches, 1), round=5)
        names = [name for name in logging_outputs[0] if name.startswith("code_")]
        counts = [sum(log.get(name, 0) for log in logging_outputs) for name in names]
        for name, count in zip(names, counts, strict=True):
            metrics.log_scalar_sum(f"_{name}", int(count))
        metrics.log_derived("codes_used", lambda meters: len(_frequencies(meters)))
        metrics.log_derived("code_entropy", lambda meters: round(_entropy(_frequencies(meters)), 3))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: every term is a sum or a count."""
        return True


def _frequencies(meters) -> List[float]:
    counts = [meters[name].sum for name in meters if name.startswith("_code_")]
    total = sum(counts)
    return [count / total for count in counts if count > 0]


def _entropy(frequencies: List[float]) -> float:
    return -sum(p * math.log2(p) for p in frequencies)
