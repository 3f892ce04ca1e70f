"""Losses that become NaN or infinite: what a training says when it stops because of one."""

import math
from typing import Any, Dict, List, Tuple

import torch
import torch.distributed as dist
from fairseq.logging import meters, metrics

from fairseq_resynth.data.datasets.base import UtteranceDataset
from fairseq_resynth.data.datasets.workers import describe_rows

COUNTS = ("sample_size", "nsentences", "ntokens")  # what is logged and is not a loss


class NonFiniteLossError(ValueError):
    """A loss or a gradient is NaN or infinite."""


def logged_non_finite() -> bool:
    """Whether a value that was logged last, summed over the ranks, is NaN or infinite.

    Call it in `reduce_metrics` after the criterion's, which has copied its terms from the GPU in any case.
    """
    logged = metrics.get_active_aggregators()[-1].values()
    values = [meter.val for meter in logged if isinstance(meter, meters.AverageMeter)]
    return not all(math.isfinite(value) for value in values if isinstance(value, int | float))


class RecentBatches:
    """The batches of the current update, or that of a validation, with the terms that this rank logged.

    Reading a term waits for a GPU, so `error` alone does it, when the training ends anyway.

    Args:
        datasets: the datasets by the name of their split.
    """

    def __init__(self, datasets: Dict[str, UtteranceDataset]):
        self.datasets = datasets
        self._update = 0
        self._validates = False
        self._batches: List[Tuple[str, torch.Tensor, Dict[str, Any]]] = []

    def add(self, sample: Dict[str, Any], logged: Dict[str, Any], update: int) -> None:
        """Notes a batch of an update, counted from 1, and forgets those of earlier updates."""
        if self._validates or update != self._update:
            self._batches = []
        self._update, self._validates = update, False
        self._batches.append((sample["split"], sample["id"], logged))

    def set_validation(self, sample: Dict[str, Any], logged: Dict[str, Any]) -> None:
        """Notes a batch of a validation after the last update, and forgets all others."""
        self._validates = True
        self._batches = [(sample["split"], sample["id"], logged)]

    def error(self) -> NonFiniteLossError:
        """The error that names update, terms and items of all ranks; every rank has to call this."""
        found = [
            what for what in _gathered([self._wrong(*batch) for batch in self._batches]) if what
        ]
        if not found:
            batches = _gathered([self._name(*batch[:2]) for batch in self._batches])
            what = "the gradients are NaN or infinite, although the losses are finite, in "
            found = [what + " and ".join(batches)]
        when = "validation after update" if self._validates else "update"
        return NonFiniteLossError(
            f"{when} {self._update}: {'; '.join(found)}; nothing was saved of it, and if the same command "
            "stops here again, check these recordings or use a lower --lr."
        )

    def _wrong(self, split: str, ids: torch.Tensor, logged: Dict[str, Any]) -> str:
        """The terms of a batch that are not finite; empty if all are."""
        terms = {name: float(value) for name, value in logged.items() if name not in COUNTS}
        wrong = [f"{name} is {value}" for name, value in terms.items() if not math.isfinite(value)]
        return f"{', '.join(wrong)} in {self._name(split, ids)}" if wrong else ""

    def _name(self, split: str, ids: torch.Tensor) -> str:
        return f"the batch of {describe_rows(self.datasets[split], ids.tolist())}"


def _gathered(texts: List[str]) -> List[str]:
    """These of all ranks, in the order of the ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return texts
    of_ranks: List[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, texts)
    return [text for of_rank in of_ranks for text in of_rank]
