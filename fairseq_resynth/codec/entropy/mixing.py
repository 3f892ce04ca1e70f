"""Mixing of predictions in the logarithmic domain, with weights that are learned while coding.

p(s) is proportional to 2**(sum_k w_k L_k(s) + b(s)): L_k are the experts' log2 probabilities in Q16, w_k
their weights in Q16, and b(s) is a bias of each symbol that follows the file being coded. After each symbol
w and b take one step of gradient descent on its code length, as in PAQ's mixers (Mahoney 2005), so that an
unseen voice or language costs less. The decoder takes the same steps after the same symbols, which keeps it
in step with the encoder without a bit being sent. All values are integers; shifts and divisions round down.
"""

import numpy as np
from numba import njit

from fairseq_resynth.codec.entropy.integer_math import (
    PROBABILITY_BITS,
    PROBABILITY_ONE,
    odds_to_probability,
    power_of_two,
)

# Clamped, so that no file, however odd, makes a score overflow or a weight run away.
WEIGHT_LIMIT = 4 << 16
BIAS_LIMIT = 8 << 16
CACHE_SIZE = 1 << 16
CACHE_PRIOR = 20
CACHE_SHARE = 13107  # 0.2 in Q16, at the start
CACHE_LEAST = 655  # 0.01 in Q16: a share that has fallen to 0 could never rise again


@njit(cache=True)
def mix(
    experts: np.ndarray, weights: np.ndarray, bias: np.ndarray, masked: int, frequencies: np.ndarray
) -> None:
    """Mixes (experts, symbols) int64 log2 probabilities, Q16 up to a constant, into (symbols,) frequencies.

    `weights` and `bias` are Q16, `masked` a symbol that cannot occur, or -1. The int64 frequencies are at
    least 0 with the sum 2**24 - symbols: the range coder adds 1 to each, so that every symbol, even the
    masked one, stays decodable.
    """
    scores = bias << 16
    for expert in range(len(weights)):
        scores += weights[expert] * experts[expert]
    scores >>= 16
    if masked >= 0:
        scores[masked] = -(1 << 61)  # its power is 0
    best = scores.argmax()
    for symbol in range(len(bias)):
        # Relative to the best score, the powers are at most 1 and their sum cannot overflow.
        frequencies[symbol] = power_of_two(scores[symbol] - scores[best])
    budget = PROBABILITY_ONE - len(bias)
    frequencies[:] = frequencies * budget // frequencies.sum()
    # What rounding left over goes to the largest, which it distorts the least.
    frequencies[best] += budget - frequencies.sum()


@njit(cache=True)
def learn(experts, weights, bias, frequencies, symbol: int, rates) -> None:
    """Updates weights and bias after a symbol, in place; the arrays are those of `mix`.

    `rates` are (2,) int64 step sizes: of the weights (Q16 per bit) and of the bias (Q16).
    """
    for expert in range(len(weights)):
        expected = (frequencies * (experts[expert] >> 4)).sum() >> (PROBABILITY_BITS - 4)
        moved = weights[expert] + ((experts[expert, symbol] - expected) * rates[0] >> 16)
        weights[expert] = min(max(moved, -WEIGHT_LIMIT), WEIGHT_LIMIT)
    error = -(frequencies >> (PROBABILITY_BITS - 16))
    error[symbol] += 1 << 16
    bias[:] = np.clip(bias + (error * rates[1] >> 16), -BIAS_LIMIT, BIAS_LIMIT)


@njit(cache=True)
def blend_cache(
    mixed: np.ndarray, cache: np.ndarray, context: int, share: int, frequencies: np.ndarray
) -> None:
    """Blends the mixed frequencies with what has followed the last unit earlier in this file.

    This second opinion is (20 p(s) + c(s)) / (20 + n): the mixed p and the file's own counts c, n in total.
    `cache` holds (CACHE_SIZE,) int32 counts, of which several pairs share one where there are many units;
    `context` is the last unit, `share` the weight of the second opinion, Q16. Writes (symbols,) frequencies
    with the sum of `mixed`.
    """
    second, rest = _second_opinion(mixed, cache, context), mixed.sum()
    for symbol in range(len(mixed)):
        value = mixed[symbol] + ((second[symbol] - mixed[symbol]) * share >> 16)
        # Counts are shares of 2**24 and `mixed` of 2**24 - symbols: never give out more than is left.
        frequencies[symbol] = max(min(value, rest), 0)
        rest -= frequencies[symbol]
    frequencies[mixed.argmax()] += rest


@njit(cache=True)
def _second_opinion(mixed, cache, context):
    places = (context * len(mixed) + np.arange(len(mixed))) & (CACHE_SIZE - 1)
    counts = cache[places].astype(np.int64)
    return (CACHE_PRIOR * mixed + (counts << PROBABILITY_BITS)) // (CACHE_PRIOR + counts.sum())


@njit(cache=True)
def learn_cache(mixed, cache, context: int, share: int, frequencies, symbol: int) -> int:
    """Counts a symbol in the cache; returns the new share of the second opinion by Bayes' rule, Q16."""
    likely = _second_opinion(mixed, cache, context)[symbol]
    cache[(context * len(mixed) + symbol) & (CACHE_SIZE - 1)] += 1
    moved = share * (likely + 1) // (frequencies[symbol] + 1)
    return min(max(moved, CACHE_LEAST), (1 << 16) - CACHE_LEAST)


@njit(cache=True)
def mix_binary(experts: np.ndarray, weights: np.ndarray) -> int:
    """Mixes the log2 odds of a yes, (experts,) int64 Q16, into its probability, Q24."""
    score = 0
    for expert in range(len(weights)):
        score += weights[expert] * experts[expert]
    return odds_to_probability(score >> 16)


@njit(cache=True)
def learn_binary(
    experts: np.ndarray, weights: np.ndarray, probability: int, answer: int, rate: int
) -> None:
    """Updates the weights after a yes (1) or no (0), in place; `rate` is the step size, Q16 per bit."""
    error = (answer << 16) - (probability >> (PROBABILITY_BITS - 16))
    for expert in range(len(weights)):
        moved = weights[expert] + ((error * experts[expert] >> 16) * rate >> 16)
        weights[expert] = min(max(moved, -WEIGHT_LIMIT), WEIGHT_LIMIT)
