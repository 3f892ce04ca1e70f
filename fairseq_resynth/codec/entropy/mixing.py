"""Mixing of predictions in the logarithmic domain, learned while coding, in integers.

p(s) is proportional to 2**(sum_k w_k L_k(s) + b(s)): L_k are the experts' log2 probabilities in Q16, w_k
their weights in Q16, b(s) a bias for each symbol that follows the file at hand. After each symbol w and
b take one step of gradient descent on its code length, as PAQ's mixers do (Mahoney 2005), so an unseen
voice or language costs less. Shifts round down, here and in any other implementation.
"""

import numpy as np
from numba import njit

from fairseq_resynth.codec.entropy.integer_math import (
    PROBABILITY_BITS,
    log_odds,
    logarithm,
    odds_to_probability,
    power_of_two,
)

WEIGHT_LIMIT = 4 << 16
BIAS_LIMIT = 8 << 16
CACHE_SIZE = 1 << 16
CACHE_PRIOR = 20
CACHE_SHARE = 13107  # 0.2 in Q16, at the start
CACHE_LEAST = 655  # 0.01 in Q16
FLOOR = -(24 << 16)  # the smallest log2 probability of an expert, Q16


@njit(cache=True)
def log_probabilities(probabilities: np.ndarray, out: np.ndarray) -> None:
    """Writes log2 of (symbols,) int64 Q24 probabilities to `out`, Q16."""
    for symbol in range(len(probabilities)):
        value = probabilities[symbol]
        out[symbol] = logarithm(value) - (PROBABILITY_BITS << 16) if value > 0 else FLOOR


@njit(cache=True)
def mix(
    experts: np.ndarray, weights: np.ndarray, bias: np.ndarray, masked: int, frequencies: np.ndarray
) -> None:
    """Mixes the experts into frequencies for the range coder.

    Args:
        experts: (experts, symbols) int64, log2 probabilities up to a constant, Q16.
        weights: (experts,) int64, Q16.
        bias: (symbols,) int64, Q16.
        masked: a symbol that cannot come, or -1.
        frequencies: (symbols,) int64, written: at least 0, in sum 2**24 - symbols (the coder adds 1 to each).
    """
    size = len(bias)
    best = -(1 << 62)
    for symbol in range(size):
        score = bias[symbol] << 16
        for expert in range(len(weights)):
            score += weights[expert] * experts[expert, symbol]
        frequencies[symbol] = score >> 16
        if symbol != masked and score >> 16 > best:
            best = score >> 16
    total, best_symbol = 0, -1
    for symbol in range(size):
        if symbol == masked:
            frequencies[symbol] = 0
            continue
        if frequencies[symbol] == best and best_symbol < 0:
            best_symbol = symbol
        frequencies[symbol] = power_of_two(frequencies[symbol] - best)
        total += frequencies[symbol]
    budget = (1 << PROBABILITY_BITS) - size
    rest = budget
    for symbol in range(size):
        frequencies[symbol] = frequencies[symbol] * budget // total
        rest -= frequencies[symbol]
    frequencies[best_symbol] += rest


@njit(cache=True)
def learn(
    experts: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    frequencies: np.ndarray,
    symbol: int,
    rates: np.ndarray,
) -> None:
    """Moves weights and bias after a symbol, in place.

    Args:
        experts, weights, bias, frequencies: as `mix` had them.
        symbol: what came.
        rates: (2,) int64, steps of the weights (Q16 a bit) and of the bias (Q16).
    """
    for expert in range(len(weights)):
        expected = 0
        for other in range(len(bias)):
            expected += frequencies[other] * (experts[expert, other] >> 4)
        gradient = experts[expert, symbol] - (expected >> (PROBABILITY_BITS - 4))
        moved = weights[expert] + (gradient * rates[0] >> 16)
        weights[expert] = min(max(moved, -WEIGHT_LIMIT), WEIGHT_LIMIT)
    for other in range(len(bias)):
        error = -(frequencies[other] >> (PROBABILITY_BITS - 16))
        if other == symbol:
            error += 1 << 16
        moved = bias[other] + (error * rates[1] >> 16)
        bias[other] = min(max(moved, -BIAS_LIMIT), BIAS_LIMIT)


@njit(cache=True)
def blend_cache(
    mixed: np.ndarray, cache: np.ndarray, context: int, share: int, frequencies: np.ndarray
) -> None:
    """Blends the mixed frequencies with what has followed the last unit in this very file.

    The second opinion is (20 p(s) + c(s)) / (20 + n): the mixed p with the file's own counts c, n in sum.

    Args:
        mixed: (symbols,) int64 as `mix` wrote them.
        cache: (CACHE_SIZE,) int32 counts; pairs of units share a place where there are many.
        context: the last unit.
        share: of the second opinion, Q16.
        frequencies: (symbols,) int64, written, with the sum of `mixed`.
    """
    size = len(mixed)
    total, rest, best = CACHE_PRIOR, 0, 0
    for symbol in range(size):
        total += cache[(context * size + symbol) & (CACHE_SIZE - 1)]
        rest += mixed[symbol]
    for symbol in range(size):
        count = np.int64(cache[(context * size + symbol) & (CACHE_SIZE - 1)])
        other = (CACHE_PRIOR * mixed[symbol] + (count << PROBABILITY_BITS)) // total
        value = mixed[symbol] + ((other - mixed[symbol]) * share >> 16)
        value = max(min(value, rest), 0)
        frequencies[symbol] = value
        rest -= value
        if mixed[symbol] > mixed[best]:
            best = symbol
    frequencies[best] += rest


@njit(cache=True)
def learn_cache(
    mixed: np.ndarray,
    cache: np.ndarray,
    context: int,
    share: int,
    frequencies: np.ndarray,
    symbol: int,
) -> int:
    """Counts a symbol in the cache and returns the second opinion's new share, by Bayes' rule, Q16."""
    size, total = len(mixed), CACHE_PRIOR
    for other in range(size):
        total += cache[(context * size + other) & (CACHE_SIZE - 1)]
    place = (context * size + symbol) & (CACHE_SIZE - 1)
    likely = (CACHE_PRIOR * mixed[symbol] + (np.int64(cache[place]) << PROBABILITY_BITS)) // total
    cache[place] += 1
    moved = share * (likely + 1) // (frequencies[symbol] + 1)
    return min(max(moved, CACHE_LEAST), (1 << 16) - CACHE_LEAST)


@njit(cache=True)
def mix_binary(experts: np.ndarray, weights: np.ndarray) -> int:
    """Mixes log2 odds (experts,) int64 Q16 of a yes; returns its probability, Q24."""
    score = 0
    for expert in range(len(weights)):
        score += weights[expert] * experts[expert]
    return odds_to_probability(score >> 16)


@njit(cache=True)
def learn_binary(
    experts: np.ndarray, weights: np.ndarray, probability: int, answer: int, rate: int
) -> None:
    """Moves the weights after a yes (1) or no (0), in place; `rate` is in Q16 a bit."""
    error = (answer << 16) - (probability >> (PROBABILITY_BITS - 16))
    for expert in range(len(weights)):
        moved = weights[expert] + ((error * experts[expert] >> 16) * rate >> 16)
        weights[expert] = min(max(moved, -WEIGHT_LIMIT), WEIGHT_LIMIT)


@njit(cache=True)
def binary_odds(no: int, yes: int) -> int:
    """Returns the log2 odds of a yes in Q16 from two Q24 probabilities that may be 0."""
    share = (max(yes, 1) << PROBABILITY_BITS) // (max(yes, 1) + max(no, 1))
    least = 1 << (PROBABILITY_BITS - 12)
    return log_odds(min(max(share, least), (1 << PROBABILITY_BITS) - least))
