"""What each table looks at: the contexts as numbers, the same in fitting (numpy) and coding (compiled).

Every function takes integers or parallel arrays of them; all the contexts of a table fit 63 bits.
"""

import numpy as np
from numba import njit

from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_BITS
from fairseq_resynth.codec.entropy.mixing import binary_odds, log_probabilities
from fairseq_resynth.codec.entropy.ngrams import find_context, refine

RATE_CLASSES = 8  # runs of 7 frames and more look alike to the speaking rate's contexts


@njit(cache=True)
def unit_context(order: int, units, radix: int):
    """The last `order` units, `units[0]` the most recent; radix is A + 1."""
    key = units[0] * 0
    for index in range(order):
        key = key * radix + units[index]
    return key


@njit(cache=True)
def run_context(order: int, run, units, radix: int):
    """The frames so far of this run, with its unit (order 1) and the unit before (order 2)."""
    key = run
    for index in range(order):
        key = key * radix + units[index]
    return key


@njit(cache=True)
def rate_context(order: int, run, before, earlier, unit, radix: int):
    """The frames so far of this run, with the two runs before (order 0), or with one and the unit."""
    if order == 0:
        return (run * RATE_CLASSES + before) * RATE_CLASSES + earlier
    return (run * RATE_CLASSES + before) * radix + unit


@njit(cache=True)
def f0_context(order: int, codes, radix: int):
    """The last `order` F0 codes, `codes[0]` the most recent; radix is the number of codes + 1."""
    key = codes[0] * 0
    for index in range(order):
        key = key * radix + codes[index]
    return key


@njit(cache=True)
def f0_unit_context(order: int, unit, unit_before, code, num_symbols: int, radix: int):
    """The unit within the code's span, with the last code (order 1) and the unit before (order 2)."""
    key = unit
    if order > 0:
        key = key * radix + code
    if order > 1:
        key = key * num_symbols + unit_before
    return key


@njit(cache=True)
def unit_experts(
    units: np.ndarray,
    firsts: np.ndarray,
    keys: np.ndarray,
    ends: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
    experts: np.ndarray,
) -> None:
    """Writes the tables' log2 probabilities of the next unit to `experts[:4]`, (rows, A + 1) int64 Q16.

    Args:
        units: (4,) int64, the last units, most recent first; A before the start.
        firsts, keys, ends, symbols, counts: the tables `unit`.
    """
    size = experts.shape[1]
    probabilities = np.full(size, (1 << PROBABILITY_BITS) // size, np.int64)
    for order in range(len(firsts) - 1):
        row = find_context(firsts, keys, order, unit_context(order, units, size))
        refine(probabilities, row, ends, symbols, counts)
        if order > 0:
            log_probabilities(probabilities, experts[order - 1])


@njit(cache=True)
def run_experts(
    run: int,
    units: np.ndarray,
    radix: int,
    firsts: np.ndarray,
    keys: np.ndarray,
    ends: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
    experts: np.ndarray,
) -> None:
    """Writes the log2 odds that the run ends here by unit, and by unit and the one before, to experts[:2]."""
    probabilities = np.full(2, 1 << (PROBABILITY_BITS - 1), np.int64)
    for order in range(len(firsts) - 1):
        row = find_context(firsts, keys, order, run_context(order, run, units, radix))
        refine(probabilities, row, ends, symbols, counts)
        if order > 0:
            experts[order - 1] = binary_odds(probabilities[0], probabilities[1])


@njit(cache=True)
def rate_expert(
    run: int,
    lengths: np.ndarray,
    unit: int,
    radix: int,
    firsts: np.ndarray,
    keys: np.ndarray,
    ends: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Returns the log2 odds that the run ends here by the speaking rate; `lengths` (2,): the runs before."""
    probabilities = np.full(2, 1 << (PROBABILITY_BITS - 1), np.int64)
    before, earlier = min(lengths[0], RATE_CLASSES - 1), min(lengths[1], RATE_CLASSES - 1)
    for order in range(len(firsts) - 1):
        key = rate_context(order, run, before, earlier, unit, radix)
        refine(probabilities, find_context(firsts, keys, order, key), ends, symbols, counts)
    return binary_odds(probabilities[0], probabilities[1])


@njit(cache=True)
def f0_experts(
    codes: np.ndarray,
    firsts: np.ndarray,
    keys: np.ndarray,
    ends: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
    experts: np.ndarray,
) -> None:
    """Writes log2 probabilities of the next F0 code by the last 1 … 3 codes to rows 0 … 2 of `experts`."""
    size = experts.shape[1]
    probabilities = np.full(size, (1 << PROBABILITY_BITS) // size, np.int64)
    for order in range(len(firsts) - 1):
        row = find_context(firsts, keys, order, f0_context(order, codes, size))
        refine(probabilities, row, ends, symbols, counts)
        if order > 0:
            log_probabilities(probabilities, experts[order - 1])


@njit(cache=True)
def f0_unit_experts(
    unit: int,
    unit_before: int,
    code: int,
    num_symbols: int,
    firsts: np.ndarray,
    keys: np.ndarray,
    ends: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
    experts: np.ndarray,
) -> None:
    """Writes log2 probabilities of the next F0 code by the units there to rows 3 and 4 of `experts`."""
    size = experts.shape[1]
    probabilities = np.full(size, (1 << PROBABILITY_BITS) // size, np.int64)
    for order in range(len(firsts) - 1):
        key = f0_unit_context(order, unit, unit_before, code, num_symbols, size)
        refine(probabilities, find_context(firsts, keys, order, key), ends, symbols, counts)
        if order > 0:
            log_probabilities(probabilities, experts[order + 2])
