"""Vector quantization with an exponentially averaged codebook (van den Oord et al., 2017, appendix A)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, D) of all processes, in an order that does not depend on which process had which row."""
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
    """Nearest-neighbor quantizer whose codes follow a running mean of the vectors that they quantize.

    A code that is used less than `threshold` times per step (running mean) restarts at a random vector of
    the batch (Jukebox, Dhariwal et al., 2020). Everything that a resumed training needs is a buffer.

    Attributes:
        counts_batches: whether the vectors of this process count in the codebook. False for the dummy batches
            by which fairseq keeps a process without data in step with the others.
    """

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, threshold: float = 1.0):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"--codebook-decay is {decay}, expected 0 <= decay < 1.")
        self.decay, self.threshold = decay, threshold
        self.counts_batches = True
        self.register_buffer("codebook", torch.zeros(num_codes, dim))
        self.register_buffer("running_sum", torch.zeros(num_codes, dim))
        self.register_buffer("running_count", torch.ones(num_codes))
        # a float, as --store-ema averages every tensor of a model
        self.register_buffer("num_steps", torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        """Maps vectors (B, D, F) to the nearest codes (B, F) int64."""
        rows = x.transpose(1, 2).flatten(0, 1)
        distances = (
            (rows**2).sum(1, keepdim=True) - 2 * rows @ self.codebook.T + (self.codebook**2).sum(1)
        )
        return distances.argmin(1).view(x.size(0), x.size(2))

    def decode(self, codes: Tensor) -> Tensor:
        """Maps codes (B, F) to their vectors (B, D, F)."""
        return F.embedding(codes, self.codebook).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes vectors (B, D, F); in training mode also moves the codebook.

        `mask` (B, F) is True for vectors that count; None: all. Returns (quantized (B, D, F), which passes
        gradients straight through; codes (B, F) int64; commitment loss, the mean squared distance of the
        vectors that count to their codes).
        """
        if mask is None:
            mask = torch.ones(x.size(0), x.size(2), dtype=torch.bool, device=x.device)
        counted = mask if self.counts_batches else torch.zeros_like(mask)
        rows = x.detach().transpose(1, 2)[counted]
        if self.training and self.num_steps == 0:
            self._restart(torch.ones_like(self.running_count, dtype=torch.bool), rows)
        codes = self.encode(x.detach())
        quantized = self.decode(codes)
        commitment = ((x - quantized) ** 2).mean(1)[mask].mean()
        if self.training:
            self._update(rows, codes[counted])
        return x + (quantized - x).detach(), codes, commitment

    @torch.no_grad()
    def _update(self, rows: Tensor, codes: Tensor) -> None:
        one_hot = F.one_hot(codes, len(self.codebook)).to(rows.dtype)
        totals = torch.cat([one_hot.T @ rows, one_hot.sum(0)[:, None]], dim=1)
        if _is_distributed():
            dist.all_reduce(totals)
        if not totals[:, -1].any():  # nothing but dummy batches, in every process
            return
        self.num_steps += 1
        self.running_sum.lerp_(totals[:, :-1], 1 - self.decay)
        self.running_count.lerp_(totals[:, -1], 1 - self.decay)
        self.codebook.copy_(self.running_sum / self.running_count[:, None].clamp(min=1e-9))
        dead = self.running_count < self.threshold
        # Gathering the rows is the expensive part. Every process decides alike whether to take part in it,
        # since the running counts come from the sums over all processes and are equal everywhere.
        if dead.any():
            self._restart(dead, rows)

    @torch.no_grad()
    def _restart(self, dead: Tensor, rows: Tensor) -> None:
        rows = _gather_rows(rows)
        if not len(rows):
            return
        # Seeded by the step, a buffer: processes agree, and a resumed run draws what it would have drawn.
        generator = torch.Generator().manual_seed(int(self.num_steps))
        draws = torch.randint(len(rows), (len(dead),), generator=generator)
        if len(rows) >= len(dead):
            draws = torch.randperm(len(rows), generator=generator)[: len(dead)]
        candidates = rows[draws.to(rows.device)]
        self.codebook[dead] = candidates[dead]
        if self.num_steps == 0:
            self.running_sum.copy_(self.codebook)
