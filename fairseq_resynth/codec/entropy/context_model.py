"""The context model at work on one file: probabilities before a symbol, learning after it.

Encoder and decoder each hold one of these and call it in the same order. It sees only symbols that both know,
and computes with integers alone (shifts and divisions round down), so both arrive at the same probabilities.

Predictions are mixed in the logarithmic domain: p(s) is proportional to 2**(sum_k w_k L_k(s) + b(s)). L_k are
the experts' log2 probabilities in Q16, w_k their weights in Q16, b(s) is a bias of each symbol. After each
symbol w and b take one step of gradient descent on its code length, as in PAQ's mixers (Mahoney 2005), so
that an unseen voice or language costs less.
"""

import numpy as np
from numba import njit

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.entropy.integer_math import (
    PROBABILITY_BITS,
    PROBABILITY_ONE,
    odds_to_probability,
    power_of_two,
)
from fairseq_resynth.codec.entropy.network import NetworkState
from fairseq_resynth.codec.entropy.ngrams import run_experts, symbol_experts

# From the longest run of the tables on, one adaptive probability of the run's end follows the file: long
# silence costs little, yet enough that a few bytes cannot claim days of it.
TAIL_START, TAIL_LEAST, TAIL_SHIFT = PROBABILITY_ONE >> 3, PROBABILITY_ONE >> 8, 4
# Clamped, so that no file, however odd, makes a score overflow or a weight run away.
WEIGHT_LIMIT = 4 << 16
BIAS_LIMIT = 8 << 16
CACHE_SIZE = 1 << 16
CACHE_PRIOR = 20
CACHE_SHARE = 13107  # 0.2 in Q16, at the start
CONFUSION_SHARE = 7864  # 0.12 in Q16, at the start
CONFUSION_LEAST = 1 << 11  # less likely units, of 2**24, stand for themselves
SHARE_LEAST = 655  # 0.01 in Q16: a share that has fallen to 0 could never rise again


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
    """Updates weights and bias after a symbol, in place; the arrays are those of `mix`. `rates` are (2,)
    int64 step sizes: of the weights (Q16 per bit) and of the bias (Q16)."""
    for expert in range(len(weights)):
        expected = (frequencies * (experts[expert] >> 4)).sum() >> (PROBABILITY_BITS - 4)
        moved = weights[expert] + ((experts[expert, symbol] - expected) * rates[0] >> 16)
        weights[expert] = min(max(moved, -WEIGHT_LIMIT), WEIGHT_LIMIT)
    error = -(frequencies >> (PROBABILITY_BITS - 16))
    error[symbol] += 1 << 16
    bias[:] = np.clip(bias + (error * rates[1] >> 16), -BIAS_LIMIT, BIAS_LIMIT)


@njit(cache=True)
def blend(first: np.ndarray, second: np.ndarray, share: int, frequencies: np.ndarray) -> None:
    """Writes (symbols,) `frequencies` with the sum of `first`, of which `share`, Q16, are the second's."""
    rest = first.sum()
    for symbol in range(len(first)):
        value = first[symbol] + ((second[symbol] - first[symbol]) * share >> 16)
        # The sum of the second may be another: never give out more than is left.
        frequencies[symbol] = max(min(value, rest), 0)
        rest -= frequencies[symbol]
    frequencies[first.argmax()] += rest


@njit(cache=True)
def _new_share(share, likely, frequency):
    moved = share * (likely + 1) // (frequency + 1)
    return min(max(moved, SHARE_LEAST), (1 << 16) - SHARE_LEAST)


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
    blend(mixed, _second_opinion(mixed, cache, context), share, frequencies)


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
    return _new_share(share, likely, frequencies[symbol])


@njit(cache=True)
def confuse(
    mixed: np.ndarray, units: np.ndarray, counts: np.ndarray, masked: int, second: np.ndarray
) -> None:
    """Writes what follows if this voice has another unit where those of the fitted ones had the expected one.

    Unknown voices and languages fall into other clusters than those that the model was fitted on. Each unit
    stands for one of its `units`, (A, K) int64, in proportion to `counts`, (A, K) int64 Q16, so that
    p(s) = sum_a p(a) n(a, s) / sum_k n(a, k). The (A + 1,) frequencies `second` have the sum of `mixed`;
    that of `masked`, if it is not -1, is 0.
    """
    second[:] = 0
    second[len(units)] = mixed[len(units)]  # the end has no other name
    for unit in range(len(units)):
        if mixed[unit] < CONFUSION_LEAST:
            second[unit] += mixed[unit]
            continue
        total = counts[unit].sum()
        for place in range(units.shape[1]):
            second[units[unit, place]] += mixed[unit] * counts[unit, place] // total
    if masked >= 0:
        second[masked] = 0
    budget, total = mixed.sum(), max(second.sum(), 1)
    second[:] = second * budget // total
    second[mixed.argmax()] += budget - second.sum()


@njit(cache=True)
def learn_confusions(mixed, units, counts, second, share: int, frequencies, symbol: int) -> int:
    """Counts for which expected units `symbol` stood, in place, by the probability of each; returns the new
    share of the second opinion by Bayes' rule, Q16. The arrays are those of `confuse`, `frequencies` those
    after the blend."""
    causes = np.zeros(len(units), np.int64)
    for unit in range(len(units)):
        if mixed[unit] >= CONFUSION_LEAST:
            for place in range(units.shape[1]):
                if units[unit, place] == symbol:
                    causes[unit] = mixed[unit] * counts[unit, place] // counts[unit].sum()
    total = causes.sum()
    if total > 0:
        for unit in range(len(units)):
            if causes[unit] > 0:
                for place in range(units.shape[1]):
                    if units[unit, place] == symbol:
                        counts[unit, place] += (causes[unit] << 16) // total
    return _new_share(share, second[symbol], frequencies[symbol])


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


class UnitModel:
    """Predicts content units frame by frame: whether the run of equal units ends, then which unit follows.
    `end` is A, the symbol that ends the units; `unit` is that of the current run, or A before the first."""

    def __init__(self, model: EntropyModel):
        settings = model.settings
        self.end = self.unit = settings.num_units
        self._longest_run = settings.longest_run
        unit_table, *run_tables = (model.tables[name].arrays() for name in ("unit", "run", "rate"))
        radices = np.full(4, self.end + 1, np.int64)
        self._past = np.array([[self.end], [0]]).repeat(4, axis=1)  # the most recent first
        self._unit_context = self._past[0], radices, unit_table
        self._run_context = *self._past, radices, *run_tables
        self._run = 0
        self._unit_weights, self._run_weights = (model.weights[k].copy() for k in ("unit", "run"))
        self._unit_rates, self._run_rate = model.rates["unit"], model.rates["run"][0]
        self._experts = np.zeros((len(self._unit_weights), self.end + 1), np.int64)
        self._odds = np.zeros(len(self._run_weights), np.int64)
        self._bias, self._mixed, self._frequencies = np.zeros((3, self.end + 1), np.int64)
        self._cache = np.zeros(CACHE_SIZE, np.int32)
        self._share = CACHE_SHARE
        self._confusions = None
        if model.confusions:
            self._confusions = model.confusions["units"], model.confusions["counts"].copy()
            self._second, self._blended = np.zeros((2, self.end + 1), np.int64)
            self._confusion_share = CONFUSION_SHARE
        self._tail = TAIL_START
        self._probability = 0
        self._network = None if model.network is None else NetworkState(model.network, self.end)

    def change_probability(self) -> int:
        """The probability, Q24, that this frame's unit differs from the last frame's."""
        if self._run >= self._longest_run:
            self._probability = self._tail
            return self._probability
        run_experts(self._run, *self._run_context, self._odds)
        if self._network is not None:
            self._odds[3] = self._network.run_odds(self._run)
        self._probability = mix_binary(self._odds, self._run_weights)
        return self._probability

    def saw_change(self, answer: int) -> None:
        """Learns whether (1) or not (0) the unit changed."""
        if self._run >= self._longest_run:
            moved = self._tail + ((answer * PROBABILITY_ONE - self._tail) >> TAIL_SHIFT)
            self._tail = min(max(moved, TAIL_LEAST), PROBABILITY_ONE - TAIL_LEAST)
        else:
            learn_binary(self._odds, self._run_weights, self._probability, answer, self._run_rate)
        if answer and self._network is not None:
            self._network.feed(self.unit, self._run)
        self._run += not answer

    def frequencies(self) -> np.ndarray:
        """Frequencies of the symbol after a change, (A + 1,) int64, with the sum 2**24 - (A + 1)."""
        symbol_experts(0, *self._unit_context, self._experts[:4])
        if self._network is not None:
            self._network.unit_logits(self._experts[4])
        # After a change the old unit cannot follow, so it gets no share; but any may begin a file.
        masked = self.unit if self.unit != self.end else -1
        mix(self._experts, self._unit_weights, self._bias, masked, self._mixed)
        expected = self._mixed
        if self._confusions is not None:
            expected = self._blended
            confuse(self._mixed, *self._confusions, masked, self._second)
            blend(self._mixed, self._second, self._confusion_share, expected)
        blend_cache(expected, self._cache, self.unit, self._share, self._frequencies)
        return self._frequencies

    def saw_unit(self, unit: int) -> None:
        """Learns the unit that follows; A stands for a unit that the model does not have."""
        learn(self._experts, self._unit_weights, self._bias, self._mixed, unit, self._unit_rates)
        expected = self._mixed
        if self._confusions is not None:
            expected = self._blended
            self._confusion_share = learn_confusions(
                self._mixed, *self._confusions, self._second, self._confusion_share, expected, unit
            )
        self._share = learn_cache(
            expected, self._cache, self.unit, self._share, self._frequencies, unit
        )
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = unit, self._run
        self.unit, self._run = unit, 1
        if self._network is not None:
            self._network.begin_run(unit)


class F0Model:
    """Predicts F0 codes from the codes before them and from the units; `end` is C, which ends the codes."""

    def __init__(self, model: EntropyModel):
        settings = model.settings
        self.end = settings.num_f0_codes
        self._tables = model.tables["f0"].arrays(), model.tables["f0_by_unit"].arrays()
        self._rates, self._end_counts = model.rates["f0"], model.f0_end
        self._past = np.full(3, self.end, np.int64)  # most recent first
        self._radices = np.full(3, self.end + 1, np.int64)
        self._unit_context = np.zeros(2, np.int64)
        self._unit_radices = np.array([self.end + 1, settings.num_units + 1])
        self._weights = model.weights["f0"].copy()
        self._experts = np.zeros((len(self._weights), self.end + 1), np.int64)
        self._bias, self._frequencies = np.zeros((2, self.end + 1), np.int64)

    def frequencies(self, unit: int, unit_before: int) -> np.ndarray:
        """Frequencies of the next code, (C + 1,) int64, with the sum 2**24 - (C + 1). `unit` is in the
        middle of the code's span, A when there is none; `unit_before`: of the code before."""
        by_code, by_unit = self._tables
        symbol_experts(0, self._past, self._radices, by_code, self._experts[:3])
        self._unit_context[:] = self._past[0], unit_before
        symbol_experts(unit, self._unit_context, self._unit_radices, by_unit, self._experts[3:])
        # The end of the codes is coded apart, after the units; a model without codes has no other symbol.
        masked = self.end if self.end else -1
        mix(self._experts, self._weights, self._bias, masked, self._frequencies)
        return self._frequencies

    def saw(self, code: int) -> None:
        """Learns the code that follows; C stands for a code that the model does not have."""
        learn(self._experts, self._weights, self._bias, self._frequencies, code, self._rates)
        self._past[1:] = self._past[:-1]
        self._past[0] = code

    def end_probability(self, units_left: int, extra: int) -> int:
        """The probability, Q24, that the codes end here, `extra` codes after the units. `units_left` is the
        number of units in the last, unfinished period of both hops."""
        on, stop = self._end_counts[units_left, min(extra, 2)].tolist()
        return (stop * PROBABILITY_ONE) // (on + stop)
