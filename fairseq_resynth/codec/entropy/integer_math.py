"""Logarithms, powers of two and gates in integers.

A decoder must arrive at exactly the encoder's probabilities, whatever the processor, the compiler and the
versions of the libraries. Floating point sums depend on the order of summation and `exp` on the library, and
one different bit would turn the rest of a file into noise; integers leave nothing to round differently.

Fixed point: a number x in Qn is the integer round(x * 2**n). Logarithms are to base 2 and in Q16,
probabilities in Q24. The tables come from integer square roots alone.
"""

from math import isqrt

import numpy as np
from numba import njit
from numba.extending import register_jitable

PROBABILITY_BITS = 24  # what the range coder takes
PROBABILITY_ONE = 1 << PROBABILITY_BITS
LOG_ONE = 1 << 16  # one bit, Q16
GATE_BITS = 12  # activations of the network, Q12
_STEPS = 1024
_WORK = 62


def _power_table() -> np.ndarray:
    """floor(2**(30 + i / 1024)) for i = 0 … 1024, from ten nested integer square roots."""
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
    """floor(2**16 log2(1 + i / 1024)) for i = 0 … 1024, digit by digit by squaring."""
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


@register_jitable
def _power(exponent):
    """2**exponent in Q30 for an exponent from -31 to 0, Q16, an integer or (n,) int64."""
    fraction = exponent & 0xFFFF
    index = fraction >> 6
    low = POWERS[index]
    value = low + ((POWERS[index + 1] - low) * (fraction & 63) >> 6)
    return value >> -(exponent >> 16)


@njit(cache=True)
def power_of_two(exponent: int) -> int:
    """2**exponent in Q30, for an exponent in Q16 of at most 0."""
    return _power(exponent) if exponent >= -31 << 16 else 0


@njit(cache=True)
def logarithm(value: int) -> int:
    """log2(value) in Q16, for an integer from 1 to 2**48."""
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
    """log2(p / (1 - p)) in Q16, for p in Q24, strictly between 0 and 1."""
    return logarithm(probability) - logarithm(PROBABILITY_ONE - probability)


@njit(cache=True)
def odds_to_probability(odds: int) -> int:
    """Inverse of `log_odds`, Q24, at least 2**-10 and at most 1 - 2**-10. Without these bounds a long run
    would cost next to nothing per frame, and the frame that ends it dozens of bits; with them neither answer
    ever costs more than 10."""
    if odds >= 0:
        value = (1 << 54) // ((1 << 30) + power_of_two(-odds))
    else:
        small = power_of_two(odds)
        value = (small << 24) // ((1 << 30) + small)
    least = 1 << (PROBABILITY_BITS - 10)
    return min(max(value, least), PROBABILITY_ONE - least)


def _sigmoid(factor: int) -> np.ndarray:
    """The logistic function of `factor` / 2**16 times log(2) x for x = -8 … 8 in steps of 2**-10, Q12."""
    argument = np.arange(-(1 << 13), 1 << 13)
    small = _power(-(np.abs(argument) * factor >> 10))
    positive = ((1 << (30 + GATE_BITS)) + ((1 << 30) + small) // 2) // ((1 << 30) + small)
    return np.where(argument >= 0, positive, (1 << GATE_BITS) - positive).astype(np.int32)


# The gates of the network: 94548 is log2(e) in Q16, and tanh(x) = 2 sigmoid(2x) - 1.
SIGMOID = _sigmoid(94548)
TANGENT = (2 * _sigmoid(2 * 94548) - (1 << GATE_BITS)).astype(np.int32)


@njit(cache=True)
def gate_index(value: int) -> int:
    """Where SIGMOID and TANGENT hold the gate of a pre-activation in Q12; beyond ±8 they are flat."""
    return min(max(value >> 2, -(1 << 13)), (1 << 13) - 1) + (1 << 13)
