"""A train of band-limited pulses at a given F0."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

AT_PULSE = 1e-6  # cycles from the middle of a pulse within which the sum is replaced by its limit


@dataclass
class SourceClock:
    """The position of a chunk in its utterance, so that its pulses continue those of the chunk before.

    The phase at a sample is the sum of F0 over all samples before it. A chunk does not have them, so it
    starts from the phase that the chunk before reached at a sample of both, the anchor.

    Attributes:
        start: samples of the utterance before the chunk.
        anchor: sample of the utterance at which the phase is known.
        phase: phase at the anchor, in cycles.
        next_anchor: sample at which the next chunk needs the phase; the generator moves the anchor there.
    """

    start: int = 0
    anchor: int = 0
    phase: float = 0.0
    next_anchor: int = 0


def sample_frames(values: Tensor, hop: int, lengths: Tensor | None = None) -> Tensor:
    """Interpolates (B, L) values of frames linearly between their middles, to (B, L * hop) samples.

    The value is constant before the first middle and after the last, which `lengths` (B,) gives for each row.
    """
    # Integers, in half samples: a chunk of an utterance then has exactly the values that the whole has.
    halves = 2 * torch.arange(values.size(1) * hop, device=values.device) + 1 + hop
    before = halves // (2 * hop) - 1
    share = (halves % (2 * hop)).to(values.dtype) / (2 * hop)
    last = torch.full_like(values[:, :1], values.size(1) - 1, dtype=torch.int64)
    if lengths is not None:
        last = (lengths[:, None] - 1).to(torch.int64)
    left = before.clamp(min=0).expand(values.size(0), -1).minimum(last)
    right = (before + 1).expand(values.size(0), -1).minimum(last)
    return values.gather(1, left) * (1 - share) + values.gather(1, right) * share


def pulse_phase(
    f0: Tensor, gate: Tensor, sample_rate: int, clock: SourceClock | None = None
) -> Tensor:
    """Sums F0 to a phase that restarts at 0 wherever a voiced stretch begins.

    Without the restarts, a rounding error in the F0 of one sample would last until the end of the utterance.
    Takes F0 (B, T) in Hz and a gate (B, T) that is 0 where unvoiced; returns (B, T) cycles in float64. The
    anchor of `clock`, the position of a chunk of one utterance, is moved to the next one.
    """
    known = 0 if clock is None else clock.anchor - clock.start
    # in float64: in float32 the sum over a minute would be off by a noticeable part of a cycle
    phase = torch.cumsum(f0.double() / sample_rate, dim=1)
    phase = phase - phase[:, known, None] + (0 if clock is None else clock.phase)
    begins = F.pad((gate[:, known + 1 :] > 0) & (gate[:, known:-1] == 0), (known + 1, 0))
    # The phase at the beginning of each stretch, by the number of the stretch. A running maximum would do
    # the same, but exported graphs do not have one.
    number = begins.to(torch.int64).cumsum(dim=1)
    first = torch.zeros_like(phase).scatter(1, number * begins, phase * begins)
    phase = phase - first.gather(1, number)
    if clock is not None and 0 <= clock.next_anchor - clock.start < phase.size(1):
        clock.anchor = clock.next_anchor
        clock.phase = float(phase[0, clock.anchor - clock.start])
    return phase


def pulses(phase: Tensor, f0: Tensor, sample_rate: int) -> Tensor:
    """The sum of the cosines of all harmonics below half the sample rate, with unit power.

    The sum of cos(2 pi k p) for k = 1 … K is (sin(2 pi (K + 1/2) p) / sin(pi p) - 1) / 2, Dirichlet's kernel.
    Takes the phase (B, T) in cycles and F0 (B, T) in Hz, above 0; returns (B, T) in F0's precision.
    """
    harmonics = (0.5 * sample_rate / f0).floor().clamp(min=1)
    p = (phase - phase.round()).to(f0.dtype)  # within half a cycle, where float32 is exact enough
    middle = p.abs() < AT_PULSE
    safe = torch.where(middle, torch.full_like(p, 0.25), p)
    kernel = torch.sin(2 * math.pi * (harmonics + 0.5) * safe) / torch.sin(math.pi * safe)
    total = torch.where(middle, harmonics, (kernel - 1) / 2)
    return total * (2 / harmonics).sqrt()
