"""Integer n-gram tables: fitted with numpy, looked up and interpolated in integers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_BITS

_ONE = 1 << PROBABILITY_BITS


@dataclass(frozen=True)
class NgramTables:
    """Counts of the symbol after each context, contexts of several orders in one block.

    Attributes:
        firsts: (orders + 1,) int64, where each order's contexts begin; order 0 has the one context 0.
        keys: (contexts,) int64, contexts as numbers (`context_key`), ascending within an order.
        ends: (contexts + 1,) int64, where each context's symbols begin.
        symbols: (entries,) int64.
        counts: (entries,) int64, at least 1.
    """

    firsts: np.ndarray
    keys: np.ndarray
    ends: np.ndarray
    symbols: np.ndarray
    counts: np.ndarray

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Returns the arrays in the order that the compiled functions take them."""
        return self.firsts, self.keys, self.ends, self.symbols, self.counts

    @property
    def orders(self) -> int:
        """Number of orders, 0 included."""
        return len(self.firsts) - 1

    def check(self, num_symbols: int, name: str) -> None:
        """Refuses tables that the compiled lookups could not read safely.

        Raises:
            ValueError: sizes, order or ranges do not fit; `name` says which table.
        """
        firsts, keys, ends, symbols, counts = self.arrays()
        good = (
            len(firsts) >= 2
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
        if not good:
            raise ValueError(f"the tables {name!r} of the context model are damaged")


def context_key(context: Sequence[np.ndarray], radix: int) -> np.ndarray:
    """Packs parallel arrays of context symbols (most recent first) into one int64 each."""
    key = np.zeros_like(np.asarray(context[0], dtype=np.int64))
    for symbols in context:
        key = key * radix + symbols
    return key


def fit_tables(
    contexts: Sequence[np.ndarray], symbols: np.ndarray, least_total: Sequence[int]
) -> NgramTables:
    """Counts symbols by context.

    Args:
        contexts: per order, the context number of each symbol: (n,) int64.
        symbols: (n,) int64.
        least_total: per order, contexts seen less often are left out.
    """
    firsts, parts = [0], []
    for context, least in zip(contexts, least_total, strict=True):
        kept = _count(context, symbols, least)
        firsts.append(firsts[-1] + len(kept[0]))
        parts.append(kept)
    keys, sizes, entries, counts = (
        np.concatenate(arrays).astype(np.int64) for arrays in zip(*parts, strict=True)
    )
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return NgramTables(np.array(firsts, np.int64), keys, ends, entries, counts)


def _count(context: np.ndarray, symbols: np.ndarray, least: int) -> tuple[np.ndarray, ...]:
    pairs, counts = np.unique(np.stack([context, symbols]), axis=1, return_counts=True)
    starts = np.flatnonzero(np.r_[True, pairs[0][1:] != pairs[0][:-1]][: len(counts)])
    sizes = np.diff(starts, append=len(counts))
    totals = np.add.reduceat(counts, starts) if len(starts) else sizes
    kept = totals >= least
    mask = np.repeat(kept, sizes)
    return pairs[0][starts[kept]], sizes[kept], pairs[1][mask], counts[mask]


@njit(cache=True)
def find_context(firsts: np.ndarray, keys: np.ndarray, order: int, key: int) -> int:
    """Returns the row of a context, or -1 when it was never seen."""
    low, high = firsts[order], firsts[order + 1]
    stop = high
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and keys[low] == key else -1


@njit(cache=True)
def refine(
    probabilities: np.ndarray, row: int, ends: np.ndarray, symbols: np.ndarray, counts: np.ndarray
) -> None:
    """Turns a lower order's distribution into the next order's, in place.

    Absolute discounting by 3/4, interpolated: p(s) = (c(s) - 3/4) / n + (3/4) m / n * lower(s), with m
        different symbols in n (Ney, Essen & Kneser 1994).

    Args:
        probabilities: (symbols,) int64, Q24.
        row: the context's row, -1 leaves the lower order's distribution.
    """
    if row < 0:
        return
    first, last = ends[row], ends[row + 1]
    total = 0
    for entry in range(first, last):
        total += counts[entry]
    back_off = (3 * (last - first) << (PROBABILITY_BITS - 2)) // total
    for symbol in range(len(probabilities)):
        probabilities[symbol] = probabilities[symbol] * back_off >> PROBABILITY_BITS
    for entry in range(first, last):
        probabilities[symbols[entry]] += (
            (4 * counts[entry] - 3) << (PROBABILITY_BITS - 2)
        ) // total
