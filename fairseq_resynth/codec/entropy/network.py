"""A gated recurrent network in integers, which predicts each run of equal units from the runs before it.

Floating point sums differ in their last bits between processors, thread counts and library versions; here
weights and activations are Q12, gates come from tables, and sums are int32 that cannot overflow (checked
when a model is loaded), so that the order of summation does not matter.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from fairseq_resynth.codec.entropy.integer_math import (
    GATE_BITS,
    SIGMOID,
    TANGENT,
    gate_index,
    logarithm,
    power_of_two,
)

ODDS_LIMIT = 12 << 16  # Q16


@dataclass(frozen=True)
class IntegerNetwork:
    """Weights, with H hidden units, A content units, R the longest run, D the inner layer.

    Attributes:
        unit_input: (A + 1, 3H) int32 Q12, inputs of the gates reset, update and new by the unit of a run;
            row A is for the start of the file.
        run_input: (R + 1, 3H) int32 Q12, the same by the length of the run.
        recurrent: (3H, H) int32 Q12.
        recurrent_bias: (H,) int32 Q12, of the gate new, within the product with the reset gate.
        unit_output: (A + 1, H) int32 Q12, to log2 probabilities; row A is for the end of the file.
        unit_output_bias: (A + 1,) int32 Q12.
        run_hidden: (D, H) int32 Q12.
        run_hidden_unit: (A + 1, D) int32 Q12, by the unit of the run.
        run_output: (R + 1, D) int32 Q12, to log2 probabilities of the length; row R is for R or longer.
        run_output_bias: (R + 1,) int32 Q12.
    """

    unit_input: np.ndarray
    run_input: np.ndarray
    recurrent: np.ndarray
    recurrent_bias: np.ndarray
    unit_output: np.ndarray
    unit_output_bias: np.ndarray
    run_hidden: np.ndarray
    run_hidden_unit: np.ndarray
    run_output: np.ndarray
    run_output_bias: np.ndarray

    @property
    def longest_run(self) -> int:
        """R."""
        return len(self.run_input) - 1

    def check(self, num_units: int) -> None:
        """Checks the shapes, and that no sum can leave int32.

        Raises:
            ValueError: If an array is damaged; the message names it.
        """
        hidden, depth, runs = self.recurrent.shape[1], len(self.run_hidden), len(self.run_input)
        shapes = {
            "unit_input": (num_units + 1, 3 * hidden),
            "run_input": (runs, 3 * hidden),
            "recurrent": (3 * hidden, hidden),
            "recurrent_bias": (hidden,),
            "unit_output": (num_units + 1, hidden),
            "unit_output_bias": (num_units + 1,),
            "run_hidden": (depth, hidden),
            "run_hidden_unit": (num_units + 1, depth),
            "run_output": (runs, depth),
            "run_output_bias": (runs,),
        }
        for name, array in vars(self).items():
            # Activations are at most 2**12, so rows that sum up to less than 2**19 give sums below 2**31.
            sums = np.abs(array.astype(np.int64))
            if name in ("recurrent", "unit_output", "run_hidden"):
                sums = sums.sum(axis=-1)
            if runs < 2 or array.shape != shapes[name] or sums.max(initial=0) >= 1 << 19:
                raise ValueError(f"the network array {name!r} of the context model is damaged")


class NetworkState:
    """The network at work on one file.

    Args:
        weights: Checked weights.
        num_units: A.
    """

    def __init__(self, weights: IntegerNetwork, num_units: int):
        self._weights = weights
        hidden = weights.recurrent.shape[1]
        self._state = np.zeros(hidden, np.int32)
        self._sums = np.zeros(max(3 * hidden, num_units + 1), np.int32)
        self._odds = np.zeros(weights.longest_run + 1, np.int64)
        self.feed(num_units, 0)

    def feed(self, unit: int, run: int) -> None:
        """Takes a run of `run` frames that has ended."""
        weights = self._weights
        _step(
            unit,
            run,
            weights.unit_input,
            weights.run_input,
            weights.recurrent,
            weights.recurrent_bias,
            self._state,
            self._sums,
        )

    def unit_logits(self, out: np.ndarray) -> None:
        """Writes log2 probabilities of the next unit up to a constant to `out`, (A + 1,) int64 Q16."""
        weights = self._weights
        _unit_logits(weights.unit_output, weights.unit_output_bias, self._state, self._sums, out)

    def begin_run(self, unit: int) -> None:
        """Predicts the length of the run of `unit` that begins."""
        weights = self._weights
        _run_odds(
            unit,
            weights.run_hidden,
            weights.run_hidden_unit,
            weights.run_output,
            weights.run_output_bias,
            self._state,
            self._sums,
            self._odds,
        )

    def run_odds(self, run: int) -> int:
        """The log2 odds, Q16, that the run ends after `run` frames, for 0 < run < R."""
        return int(self._odds[run])


@njit(cache=True)
def _multiply(matrix: np.ndarray, vector: np.ndarray, out: np.ndarray) -> None:
    for row in range(matrix.shape[0]):
        total = np.int32(0)
        for column in range(matrix.shape[1]):
            total = np.int32(total + np.int32(matrix[row, column] * vector[column]))
        out[row] = total


@njit(cache=True)
def _step(
    unit: int,
    run: int,
    unit_input: np.ndarray,
    run_input: np.ndarray,
    recurrent: np.ndarray,
    recurrent_bias: np.ndarray,
    state: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Feeds one run to the network.

    Args:
        unit: Of the run.
        run: Its frames.
        unit_input, run_input, recurrent, recurrent_bias: See `IntegerNetwork`.
        state: (H,) int32 Q12, within ±2**12, updated in place.
        sums: (3H,) int32 or more, overwritten.
    """
    by_unit, by_run = unit_input[unit], run_input[min(run, len(run_input) - 1)]
    size = len(state)
    _multiply(recurrent, state, sums)
    for row in range(size):
        place = row
        reset_sum = by_unit[place] + by_run[place] + (sums[place] >> GATE_BITS)
        place += size
        update_sum = by_unit[place] + by_run[place] + (sums[place] >> GATE_BITS)
        reset, update = SIGMOID[gate_index(reset_sum)], SIGMOID[gate_index(update_sum)]
        place += size
        inner = (sums[place] >> GATE_BITS) + recurrent_bias[row]
        new = TANGENT[gate_index(by_unit[place] + by_run[place] + (reset * inner >> GATE_BITS))]
        # Rounded to nearest: rounding down at every run would push all states in one direction.
        state[row] = new + (update * (state[row] - new) + (1 << 11) >> GATE_BITS)


@njit(cache=True)
def _unit_logits(
    output: np.ndarray, bias: np.ndarray, state: np.ndarray, sums: np.ndarray, out: np.ndarray
) -> None:
    _multiply(output, state, sums)
    for symbol in range(len(out)):
        out[symbol] = (sums[symbol] >> (2 * GATE_BITS - 16)) + (np.int64(bias[symbol]) << 4)


@njit(cache=True)
def _run_odds(
    unit: int,
    hidden: np.ndarray,
    hidden_unit: np.ndarray,
    output: np.ndarray,
    bias: np.ndarray,
    state: np.ndarray,
    sums: np.ndarray,
    odds: np.ndarray,
) -> None:
    """Writes odds[r] = log2 P(length = r) / P(length > r), Q16, for 0 < r < R.

    Args:
        unit: Of the run.
        hidden, hidden_unit, output, bias: `run_*` of `IntegerNetwork`.
        state: (H,) int32.
        sums: (D,) int32 or more, overwritten.
        odds: (R + 1,) int64.
    """
    depth = len(hidden)
    _multiply(hidden, state, sums)
    layer = np.empty(depth, np.int32)
    for row in range(depth):
        layer[row] = max((sums[row] >> GATE_BITS) + hidden_unit[unit, row], 0)
    for length in range(len(odds)):
        total = np.int64(bias[length]) << GATE_BITS
        for row in range(depth):
            total += np.int64(output[length, row]) * layer[row]
        odds[length] = total >> (2 * GATE_BITS - 16)  # log2 P(length) up to a constant
    best = odds[1:].max()
    longer = 0
    for length in range(len(odds) - 1, 0, -1):
        here = power_of_two(odds[length] - best)
        log_ratio = logarithm(max(here, 1)) - logarithm(max(longer, 1))
        odds[length] = min(max(log_ratio, -ODDS_LIMIT), ODDS_LIMIT)
        longer += here
