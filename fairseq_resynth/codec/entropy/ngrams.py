"""N-gram tables: counts of symbols by context, fitted with numpy, looked up and interpolated in integers.

A context is one integer, so that a binary search finds it; fitting (numpy arrays) and coding (compiled, one
frame at a time) compute it by the same functions. Every context of a model fits into 63 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numba.extending import register_jitable

from fairseq_resynth.codec.entropy.integer_math import (
    PROBABILITY_BITS,
    PROBABILITY_ONE,
    log_odds,
    logarithm,
)

RATE_CLASSES = 8  # for the speaking rate, runs of 7 frames and more are alike
LEAST_LOG = -(24 << 16)  # log2 of a probability that rounds to 0, Q16
LEAST_ODDS = 1 << (PROBABILITY_BITS - 12)


@dataclass(frozen=True)
class NgramTables:
    """Int64 counts of the symbol that follows each context, with the contexts of all orders in one block."""

    firsts: np.ndarray  # (orders + 1,), where the contexts of each order begin
    keys: np.ndarray  # (contexts,), contexts as integers (`context_key`), ascending within an order
    ends: np.ndarray  # (contexts + 1,), where the symbols of each context begin
    symbols: np.ndarray  # (entries,)
    counts: np.ndarray  # (entries,), at least 1

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays as the tuple that compiled functions take for `table`."""
        return tuple(vars(self).values())

    def check(self, num_symbols: int, orders: int, name: str) -> None:
        """Raises ValueError unless the compiled lookups, which test no index, stay within the arrays."""
        firsts, keys, ends, symbols, counts = self.arrays()
        sound = (
            len(firsts) == orders + 1
            and firsts[0] == 0
            and firsts[-1] == len(keys) == len(ends) - 1
            and (np.diff(firsts) >= 0).all()
            and ends[0] == 0
            and ends[-1] == len(symbols) == len(counts)
            and (np.diff(ends) > 0).all()
            and (symbols >= 0).all()
            and (symbols < num_symbols).all()
            and (counts > 0).all()
            and counts.sum(dtype=np.int64) < 1 << 32
        )
        if not sound:
            raise ValueError(f"the tables {name!r} of the context model are damaged")


def fit_tables(
    contexts: Sequence[np.ndarray], symbols: np.ndarray, least_total: Sequence[int]
) -> NgramTables:
    """Counts (n,) int64 symbols by the (n,) int64 context of each, for each order. `least_total` tells for
    each order how often a context must occur to be kept."""
    firsts, parts = [0], []
    for context, least in zip(contexts, least_total, strict=True):
        pairs, counts = np.unique(np.stack([context, symbols]), axis=1, return_counts=True)
        starts = np.flatnonzero(np.r_[True, pairs[0][1:] != pairs[0][:-1]][: len(counts)])
        sizes = np.diff(starts, append=len(counts))
        kept = np.add.reduceat(counts, starts) >= least if len(starts) else starts > 0
        entries = np.repeat(kept, sizes)
        parts.append((pairs[0][starts[kept]], sizes[kept], pairs[1][entries], counts[entries]))
        firsts.append(firsts[-1] + int(kept.sum()))
    keys, sizes, kept_symbols, kept_counts = (
        np.concatenate(arrays).astype(np.int64) for arrays in zip(*parts, strict=True)
    )
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return NgramTables(np.array(firsts, np.int64), keys, ends, kept_symbols, kept_counts)


@register_jitable
def context_key(order: int, start, symbols, radices):
    """The context of an order as an integer: `start`, then the first `order` symbols in mixed radix. `start`
    is an integer, for instance the frames of the run so far; `symbols` are integers, the most recent first;
    both may be (n,) int64 arrays. `radices` are one more than the largest value of each symbol."""
    key = start
    for index in range(order):
        key = key * radices[index] + symbols[index]
    return key


@register_jitable
def rate_keys(run, before, earlier, unit, radix: int):
    """The two contexts of the speaking rate: a run's frames so far with the runs before, and with its unit.
    All are integers or (n,) int64: `before` and `earlier` are the lengths of the last two runs, at most
    RATE_CLASSES - 1; `radix` is one more than the largest unit."""
    by_run = run * RATE_CLASSES + before
    return by_run * RATE_CLASSES + earlier, by_run * radix + unit


@njit(cache=True)
def refine(probabilities: np.ndarray, table: tuple, order: int, key: int) -> None:
    """Turns the distribution of the next lower order into that of this order, in place.

    Absolute discounting by 3/4, interpolated: p(s) = (c(s) - 3/4) / n + (3/4) m / n * lower(s), with m
    different symbols among n (Ney, Essen & Kneser 1994). The sum may fall short of 1 by the rounding,
    which the mixer makes up for. A context that was never seen leaves the lower order's distribution.
    `probabilities` are (symbols,) int64 Q24, `table` is `NgramTables.arrays()`, `key` a `context_key`.
    """
    firsts, keys, ends, symbols, counts = table
    start, stop = firsts[order], firsts[order + 1]
    row = start + np.searchsorted(keys[start:stop], key)
    if row == stop or keys[row] != key:
        return
    first, last = ends[row], ends[row + 1]
    total = counts[first:last].sum()
    back_off = (3 * (last - first) << (PROBABILITY_BITS - 2)) // total
    probabilities[:] = probabilities * back_off >> PROBABILITY_BITS
    for entry in range(first, last):
        share = (4 * counts[entry] - 3) << (PROBABILITY_BITS - 2)
        probabilities[symbols[entry]] += share // total


@njit(cache=True)
def symbol_experts(
    start: int, context: np.ndarray, radices: np.ndarray, table: tuple, experts: np.ndarray
) -> None:
    """Writes what each order from 1 on predicts, log2 probabilities, to `experts`: (orders, symbols), Q16.
    The other arguments are those of `context_key` and of `refine`."""
    size = experts.shape[1]
    probabilities = np.full(size, PROBABILITY_ONE // size, np.int64)
    refine(probabilities, table, 0, start)
    for order in range(1, len(experts) + 1):
        refine(probabilities, table, order, context_key(order, start, context, radices))
        for symbol in range(size):
            value = probabilities[symbol]
            log = logarithm(value) - (PROBABILITY_BITS << 16) if value > 0 else LEAST_LOG
            experts[order - 1, symbol] = log


@njit(cache=True)
def run_experts(run: int, units, lengths, radices, run_table, rate_table, odds) -> None:
    """Writes log2 odds, Q16, that the run ends after this frame, its `run`-th, to (3,) or more int64 `odds`:
    orders 1 and 2 of `run_table`, order 1 of `rate_table`.

    `units` are that of the run and the one before, `lengths` the frames of the two runs before this one, the
    most recent first, `radices` one more than the largest unit, all (2,) int64 or more. `run_table` counts
    whether a run ends by its frames (order 0), its unit (1) and the unit before (2), `rate_table` by the two
    runs before (order 0), or by one and the unit (1).
    """
    probabilities = np.full(2, PROBABILITY_ONE >> 1, np.int64)
    for order in range(3):
        refine(probabilities, run_table, order, context_key(order, run, units, radices))
        if order > 0:
            odds[order - 1] = _binary_odds(probabilities)
    probabilities[:] = PROBABILITY_ONE >> 1
    before, earlier = min(lengths[0], RATE_CLASSES - 1), min(lengths[1], RATE_CLASSES - 1)
    keys = rate_keys(run, before, earlier, units[0], radices[0])
    for order in range(2):
        refine(probabilities, rate_table, order, keys[order])
    odds[2] = _binary_odds(probabilities)


@njit(cache=True)
def _binary_odds(probabilities: np.ndarray) -> int:
    """The log2 odds of a yes, Q16, from (2,) Q24 probabilities of no and yes, of which one may be 0."""
    no, yes = max(probabilities[0], 1), max(probabilities[1], 1)
    share = (yes << PROBABILITY_BITS) // (yes + no)
    # Counts of a few seconds never prove that a run must end or cannot: stay 2**-12 away from both.
    return log_odds(min(max(share, LEAST_ODDS), PROBABILITY_ONE - LEAST_ODDS))
