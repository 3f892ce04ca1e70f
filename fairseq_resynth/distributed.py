"""What fairseq's data parallelism does not do for a second network."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


def average_gradients(parameters: Iterable[nn.Parameter], weight: float = 1.0) -> None:
    """Replaces gradients by their mean over the processes.

    A criterion whose methods are called directly bypasses its DistributedDataParallel wrapper, so nobody
    else averages its gradients.

    Args:
        parameters: those whose gradients to average; a gradient that is None stays None.
        weight: of this process, 0 for one that has only a dummy batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    total = torch.cat(
        [torch.full_like(gradients[0].flatten()[:1], weight)]
        + [gradient.flatten() * weight for gradient in gradients]
    )
    dist.all_reduce(total)
    mean = total[1:] / total[0].clamp(min=1e-12)
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
