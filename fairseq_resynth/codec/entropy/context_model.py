"""The context model at work on one file: probabilities before a symbol, learning after it. Integers only."""

import numpy as np

from fairseq_resynth.codec.entropy import contexts, mixing, network
from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_BITS

ONE = 1 << PROBABILITY_BITS
# Past the longest run of the tables, one probability of its end follows the file: long silence costs little,
# yet enough that a few bytes cannot claim days.
TAIL_START, TAIL_LEAST, TAIL_SHIFT = ONE >> 3, ONE >> 8, 4


class UnitModel:
    """Predicts content units frame by frame: whether the run of equal units ends, then which unit follows.

    Attributes:
        end: A, the symbol that ends the file.
        unit: the unit of the run at hand, or A before the first.
    """

    def __init__(self, model: EntropyModel):
        settings = model.settings
        self.end = settings.num_units
        self.unit = self.end
        self._model = model
        self._tables = {name: model.tables[name].arrays() for name in ("unit", "run", "rate")}
        self._past_units = np.full(4, self.end, np.int64)  # most recent first
        self._past_runs = np.zeros(2, np.int64)
        self._run = 0
        self._weights = {name: model.weights[name].copy() for name in ("unit", "run")}
        self._bias = np.zeros(self.end + 1, np.int64)
        self._experts = np.zeros((len(self._weights["unit"]), self.end + 1), np.int64)
        self._odds = np.zeros(len(self._weights["run"]), np.int64)
        self._mixed = np.zeros(self.end + 1, np.int64)
        self._frequencies = np.zeros(self.end + 1, np.int64)
        self._cache = np.zeros(mixing.CACHE_SIZE, np.int32)
        self._share = mixing.CACHE_SHARE
        self._tail = TAIL_START
        self._probability = 0
        self._network = None if model.network is None else _NetworkState(model)

    def change_probability(self) -> int:
        """Returns the probability, Q24, that this frame's unit differs from the last frame's."""
        run, radix, odds = self._run, self.end + 1, self._odds
        if run >= self._model.settings.longest_run:
            self._probability = self._tail
            return self._probability
        contexts.run_experts(run, self._past_units, radix, *self._tables["run"], odds)
        odds[2] = contexts.rate_expert(
            run, self._past_runs, self.unit, radix, *self._tables["rate"]
        )
        if self._network is not None:
            odds[3] = self._network.run_odds(run)
        self._probability = mixing.mix_binary(odds, self._weights["run"])
        return self._probability

    def saw_change(self, answer: int) -> None:
        """Learns whether (1) or not (0) the unit changed."""
        if self._run >= self._model.settings.longest_run:
            moved = self._tail + ((answer * ONE - self._tail) >> TAIL_SHIFT)
            self._tail = min(max(moved, TAIL_LEAST), ONE - TAIL_LEAST)
        else:
            rate = self._model.rates["run"][0]
            mixing.learn_binary(self._odds, self._weights["run"], self._probability, answer, rate)
        if answer and self._network is not None:
            self._network.feed(self.unit, self._run)
        self._run += not answer

    def frequencies(self) -> np.ndarray:
        """Returns the next symbol's frequencies (A + 1,) int64, in sum 2**24 - (A + 1), after a change."""
        contexts.unit_experts(self._past_units, *self._tables["unit"], self._experts)
        if self._network is not None:
            self._network.unit_logits(self._experts[4])
        masked = self.unit if self.unit != self.end else -1
        mixing.mix(self._experts, self._weights["unit"], self._bias, masked, self._mixed)
        mixing.blend_cache(self._mixed, self._cache, self.unit, self._share, self._frequencies)
        return self._frequencies

    def saw_unit(self, unit: int) -> None:
        """Learns the unit that follows; A is a unit that the model does not have."""
        rates = self._model.rates["unit"]
        weights = self._weights["unit"]
        mixing.learn(self._experts, weights, self._bias, self._mixed, unit, rates)
        self._share = mixing.learn_cache(
            self._mixed, self._cache, self.unit, self._share, self._frequencies, unit
        )
        self._past_units[1:] = self._past_units[:-1]
        self._past_units[0] = unit
        self._past_runs[1] = self._past_runs[0]
        self._past_runs[0] = self._run
        self.unit, self._run = unit, 1
        if self._network is not None:
            self._network.begin_run(unit)


class _NetworkState:
    """The network's state in one file."""

    def __init__(self, model: EntropyModel):
        self._weights = weights = model.network
        self._longest = weights.longest_run
        self._state = np.zeros(weights.hidden_size, np.int32)
        self._sums = np.zeros(max(3 * weights.hidden_size, len(weights.unit_output)), np.int32)
        self._lengths = np.zeros(self._longest + 1, np.int64)
        self._odds = np.zeros(self._longest + 1, np.int64)
        self.feed(model.settings.num_units, 0)

    def feed(self, unit: int, run: int) -> None:
        """Takes a run that has ended."""
        weights = self._weights
        unit_row = weights.unit_input[unit]
        run_row = weights.run_input[min(run, self._longest)]
        network.step(
            unit_row, run_row, weights.recurrent, weights.recurrent_bias, self._state, self._sums
        )

    def unit_logits(self, out: np.ndarray) -> None:
        """Writes log2 probabilities of the next unit, up to a constant, Q16."""
        weights = self._weights
        network.unit_logits(
            weights.unit_output, weights.unit_output_bias, self._state, self._sums, out
        )

    def begin_run(self, unit: int) -> None:
        """Predicts the length of a run of `unit`."""
        weights = self._weights
        network.run_logits(
            weights.run_hidden,
            weights.run_hidden_unit[unit],
            weights.run_output,
            weights.run_output_bias,
            self._state,
            self._sums,
            self._lengths,
        )
        network.ending_odds(self._lengths, self._odds)

    def run_odds(self, run: int) -> int:
        """Returns the log2 odds, Q16, that the run ends after `run` frames, fewer than R."""
        return int(self._odds[run])


class F0Model:
    """Predicts F0 codes from the codes before and the units there.

    Attributes:
        end: the symbol that ends the stream of codes.
    """

    def __init__(self, model: EntropyModel):
        self._model = model
        self.end = model.settings.num_f0_codes
        self._tables = model.tables["f0"].arrays(), model.tables["f0_by_unit"].arrays()
        self._past = np.full(3, self.end, np.int64)
        self._weights = model.weights["f0"].copy()
        self._bias = np.zeros(self.end + 1, np.int64)
        self._experts = np.zeros((len(self._weights), self.end + 1), np.int64)
        self._frequencies = np.zeros(self.end + 1, np.int64)

    def frequencies(self, unit: int, unit_before: int) -> np.ndarray:
        """Returns the next code's frequencies (codes + 1,) int64, in sum 2**24 - (codes + 1).

        Args:
            unit: the unit within the code's span, A when there is none.
            unit_before: the unit that was this at the code before.
        """
        symbols = self._model.settings.num_units + 1
        contexts.f0_experts(self._past, *self._tables[0], self._experts)
        contexts.f0_unit_experts(
            unit, unit_before, self._past[0], symbols, *self._tables[1], self._experts
        )
        masked = self.end if self.end else -1
        mixing.mix(self._experts, self._weights, self._bias, masked, self._frequencies)
        return self._frequencies

    def saw(self, code: int) -> None:
        """Learns the code that follows; `end` is a code that the model does not have."""
        rates = self._model.rates["f0"]
        mixing.learn(self._experts, self._weights, self._bias, self._frequencies, code, rates)
        self._past[1:] = self._past[:-1]
        self._past[0] = code

    def end_probability(self, units_left: int, extra: int) -> int:
        """Returns the probability, Q24, that the codes end here, after the units did.

        Args:
            units_left: units in the last, unfinished span.
            extra: codes since the units ended.
        """
        on, stop = self._model.f0_end[units_left, min(extra, 2)].tolist()
        return (stop * ONE) // (on + stop)
