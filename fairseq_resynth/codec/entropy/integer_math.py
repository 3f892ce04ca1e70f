"""Logarithms, powers of two and gates in integers, so that no processor rounds them differently.

Fixed point: a number x in Qn is the integer round(x * 2**n). Logarithms are to base 2 and in Q16,
probabilities in Q24. The tables come from integer square roots alone; nothing here is floating point.
"""

from math import isqrt

import numpy as np
from numba import njit

PROBABILITY_BITS = 24
LOG_ONE = 1 << 16  # one bit, Q16
GATE_BITS = 12  # activations of the network, Q12
_STEPS = 1024
_WORK = 62


def _power_table() -> np.ndarray:
    """Returns floor(2**(30 + i / 1024)) for i = 0 … 1024, from ten nested integer square roots."""
    root, roots = 1 << (_WORK + 1), []
    for _ in range(10):
        root = isqrt(root << _WORK)
        roots.append(root)
    table = []
    for index in range(_STEPS):
        value = 1 << _WORK
        for bit, root in enumerate(roots):
            if index >> (9 - bit) & 1:
                value = value * root >> _WORK
        table.append(value >> (_WORK - 30))
    return np.array([*table, 1 << 31], dtype=np.int64)


def _logarithm_table() -> np.ndarray:
    """Returns floor(2**16 log2(1 + i / 1024)) for i = 0 … 1024, digit by digit by squaring."""
    table = []
    for index in range(_STEPS):
        value, digits = (_STEPS + index) << (_WORK - 10), 0
        for _ in range(16):
            value = value * value >> _WORK
            digits <<= 1
            if value >> (_WORK + 1):
                value >>= 1
                digits |= 1
        table.append(digits)
    return np.array([*table, LOG_ONE], dtype=np.int64)


POWERS = _power_table()
LOGARITHMS = _logarithm_table()


@njit(cache=True)
def power_of_two(exponent: int) -> int:
    """Returns 2**exponent in Q30.

    Args:
        exponent: Q16, at most 0.
    """
    whole = exponent >> 16
    if whole < -31:
        return 0
    fraction = exponent & 0xFFFF
    index = fraction >> 6
    low = POWERS[index]
    value = low + ((POWERS[index + 1] - low) * (fraction & 63) >> 6)
    return value >> -whole


@njit(cache=True)
def logarithm(value: int) -> int:
    """Returns log2(value) in Q16.

    Args:
        value: 1 … 2**48.
    """
    bits, rest = 0, value
    for step in (32, 16, 8, 4, 2, 1):
        if rest >> step:
            rest >>= step
            bits += step
    mantissa = value << (30 - bits) if bits <= 30 else value >> (bits - 30)
    offset = mantissa - (1 << 30)
    index = offset >> 20
    low = LOGARITHMS[index]
    return (bits << 16) + low + ((LOGARITHMS[index + 1] - low) * (offset & 0xFFFFF) >> 20)


@njit(cache=True)
def log_odds(probability: int) -> int:
    """Returns log2(p / (1 - p)) in Q16.

    Args:
        probability: p in Q24, strictly between 0 and 1.
    """
    return logarithm(probability) - logarithm((1 << PROBABILITY_BITS) - probability)


@njit(cache=True)
def odds_to_probability(odds: int) -> int:
    """Inverse of `log_odds`: Q24, at least 2**-10 and at most 1 - 2**-10, so that a frame costs something."""
    if odds >= 0:
        small = power_of_two(-odds)
        value = (1 << 54) // ((1 << 30) + small)
    else:
        small = power_of_two(odds)
        value = (small << 24) // ((1 << 30) + small)
    least = 1 << (PROBABILITY_BITS - 10)
    return min(max(value, least), (1 << PROBABILITY_BITS) - least)


@njit(cache=True)
def _gate_tables() -> tuple[np.ndarray, np.ndarray]:
    sigmoid = np.empty(1 << 14, np.int32)
    tangent = np.empty(1 << 14, np.int32)
    for index in range(1 << 14):
        argument = index - (1 << 13)  # Q10, -8 … 8
        for table, factor in ((sigmoid, 94548), (tangent, 2 * 94548)):  # log2(e) in Q16
            small = power_of_two(-(abs(argument) * factor >> 10))
            positive = ((1 << (30 + GATE_BITS)) + ((1 << 30) + small) // 2) // ((1 << 30) + small)
            table[index] = positive if argument >= 0 else (1 << GATE_BITS) - positive
    return sigmoid, tangent


SIGMOID, TANGENT = _gate_tables()
TANGENT = (2 * TANGENT - (1 << GATE_BITS)).astype(np.int32)


@njit(cache=True)
def gate_index(value: int) -> int:
    """Returns where SIGMOID and TANGENT hold the gate of a pre-activation in Q12."""
    return min(max(value >> 2, -(1 << 13)), (1 << 13) - 1) + (1 << 13)
