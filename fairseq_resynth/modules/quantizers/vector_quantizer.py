"""Vector quantisation with an exponentially averaged codebook (van den Oord et al., 2017, appendix A)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gather_rows(rows: Tensor) -> Tensor:
    """Returns the rows of all processes, (n, D), in an order that does not depend on who held which."""
    if _is_distributed():
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        longest = int(max(counts))
        padded = F.pad(rows, (0, 0, 0, longest - len(rows)))
        parts = [torch.zeros_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        rows = torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])
    return rows[torch.argsort(rows[:, 0])]


class VectorQuantizer(nn.Module):
    """Nearest-neighbour quantiser; codes follow a running mean of what they quantise.

    A code that is used less than `threshold` times a step (running mean) restarts at a random vector of the
    batch (Jukebox, Dhariwal et al., 2020). Everything that a resumed training needs is a buffer.

    Args:
        num_codes: size of the codebook.
        dim: of a code.
        decay: of the running means.
        threshold: vectors a step below which a code restarts.
    """

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, threshold: float = 1.0):
        super().__init__()
        self.decay = decay
        self.threshold = threshold
        self.register_buffer("codebook", torch.zeros(num_codes, dim))
        self.register_buffer("running_sum", torch.zeros(num_codes, dim))
        self.register_buffer("running_count", torch.ones(num_codes))
        # a float, as --store-ema averages every tensor of a model
        self.register_buffer("num_steps", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        """Returns the nearest code of each vector: (B, D, F) to (B, F) int64."""
        rows = x.transpose(1, 2).flatten(0, 1)
        distances = (
            (rows**2).sum(1, keepdim=True) - 2 * rows @ self.codebook.T + (self.codebook**2).sum(1)
        )
        return distances.argmin(1).view(x.size(0), x.size(2))

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the codes' vectors: (B, F) to (B, D, F)."""
        return F.embedding(codes, self.codebook).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantises; in training mode also moves the codebook.

        Args:
            x: (B, D, F) vectors.
            mask: (B, F) bool, vectors that count; None: all.

        Returns:
            (quantised (B, D, F), passing gradients straight through; codes (B, F) int64; commitment loss,
            the mean squared distance of the vectors that count to their codes).
        """
        if mask is None:
            mask = torch.ones(x.size(0), x.size(2), dtype=torch.bool, device=x.device)
        rows = x.detach().transpose(1, 2)[mask]
        if self.training and self.num_steps == 0:
            self._restart(torch.ones_like(self.running_count, dtype=torch.bool), rows)
        codes = self.encode(x.detach())
        quantised = self.decode(codes)
        commitment = ((x - quantised) ** 2).mean(1)[mask].mean()
        if self.training:
            self._update(rows, codes[mask])
        return x + (quantised - x).detach(), codes, commitment

    @torch.no_grad()
    def _update(self, rows: Tensor, codes: Tensor) -> None:
        one_hot = F.one_hot(codes, len(self.codebook)).to(rows.dtype)
        totals = torch.cat([one_hot.T @ rows, one_hot.sum(0)[:, None]], dim=1)
        if _is_distributed():
            dist.all_reduce(totals)
        self.num_steps += 1
        self.running_sum.lerp_(totals[:, :-1], 1 - self.decay)
        self.running_count.lerp_(totals[:, -1], 1 - self.decay)
        self.codebook.copy_(self.running_sum / self.running_count[:, None].clamp(min=1e-9))
        self._restart(self.running_count < self.threshold, rows)

    @torch.no_grad()
    def _restart(self, dead: Tensor, rows: Tensor) -> None:
        rows = _gather_rows(rows)
        # Seeded by the step, a buffer: ranks agree, and a resumed run draws what it would have drawn.
        generator = torch.Generator().manual_seed(int(self.num_steps))
        draws = torch.randint(len(rows), (len(dead),), generator=generator)
        if len(rows) >= len(dead):
            draws = torch.randperm(len(rows), generator=generator)[: len(dead)]
        candidates = rows[draws.to(rows.device)]
        self.codebook[dead] = candidates[dead]
        if self.num_steps == 0:
            self.running_sum.copy_(self.codebook)
