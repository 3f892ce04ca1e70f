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
    """Weights, int32 Q12: H hidden units, A content units, R the longest run, D the inner layer. The gates
    of the (3H,) rows are reset, update and new; outputs are log2 probabilities up to a constant."""

    unit_input: np.ndarray  # (A + 1, 3H), by the unit of a run; row A is for the start of the file
    run_input: np.ndarray  # (R + 1, 3H), by the length of the run
    recurrent: np.ndarray  # (3H, H)
    recurrent_bias: np.ndarray  # (H,), of the gate new, within the product with the reset gate
    unit_output: np.ndarray  # (A + 1, H); row A is for the end of the file
    unit_output_bias: np.ndarray  # (A + 1,)
    run_hidden: np.ndarray  # (D, H)
    run_hidden_unit: np.ndarray  # (A + 1, D), by the unit of the run
    run_output: np.ndarray  # (R + 1, D); row R is for R or longer
    run_output_bias: np.ndarray  # (R + 1,)

    @property
    def longest_run(self) -> int:
        """R."""
        return len(self.run_input) - 1

    def check(self, num_units: int) -> None:
        """Raises ValueError, which names the array, if a shape is wrong or a sum could leave int32."""
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
    """The network at work on one file, with checked weights and A = `num_units`."""

    def __init__(self, weights: IntegerNetwork, num_units: int):
        arrays = list(vars(weights).values())
        self._step, self._unit, self._run = arrays[:4], arrays[4:6], arrays[6:]
        hidden = weights.recurrent.shape[1]
        self._state = np.zeros(hidden, np.int32)
        self._sums = np.zeros(max(3 * hidden, num_units + 1), np.int32)
        self._odds = np.zeros(weights.longest_run + 1, np.int64)
        self.feed(num_units, 0)

    def feed(self, unit: int, run: int) -> None:
        """Takes a run of `run` frames that has ended."""
        _step(unit, run, *self._step, self._state, self._sums)

    def unit_logits(self, out: np.ndarray) -> None:
        """Writes log2 probabilities of the next unit up to a constant to `out`, (A + 1,) int64 Q16."""
        _unit_logits(*self._unit, self._state, self._sums, out)

    def begin_run(self, unit: int) -> None:
        """Predicts the length of the run of `unit` that begins."""
        _run_odds(unit, *self._run, self._state, self._sums, self._odds)

    def run_odds(self, run: int) -> int:
        """The log2 odds, Q16, that the run ends after `run` frames, for 0 < run < R."""
        return int(self._odds[run])


@njit(cache=True)
def _multiply(matrix, vector, out):
    for row in range(matrix.shape[0]):
        total = np.int32(0)
        for column in range(matrix.shape[1]):
            total = np.int32(total + np.int32(matrix[row, column] * vector[column]))
        out[row] = total


@njit(cache=True)
def _step(unit, run, unit_input, run_input, recurrent, recurrent_bias, state, sums):
    """Updates the state, (H,) int32 Q12 within ±2**12, by one run; overwrites (3H,) int32 sums."""
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
def _unit_logits(output, bias, state, sums, out):
    _multiply(output, state, sums)
    out[:] = (sums[: len(out)] >> (2 * GATE_BITS - 16)) + (bias.astype(np.int64) << 4)


@njit(cache=True)
def _run_odds(unit, hidden, hidden_unit, output, bias, state, sums, odds):
    """Writes odds[r] = log2 P(length = r) / P(length > r), Q16, for 0 < r < R, to (R + 1,) int64."""
    _multiply(hidden, state, sums)
    layer = np.maximum((sums[: len(hidden)] >> GATE_BITS) + hidden_unit[unit], 0).astype(np.int64)
    for length in range(len(odds)):
        total = (np.int64(bias[length]) << GATE_BITS) + (output[length] * layer).sum()
        odds[length] = total >> (2 * GATE_BITS - 16)  # log2 P(length) up to a constant
    best = odds[1:].max()
    longer = 0
    for length in range(len(odds) - 1, 0, -1):
        here = power_of_two(odds[length] - best)
        log_ratio = logarithm(max(here, 1)) - logarithm(max(longer, 1))
        odds[length] = min(max(log_ratio, -ODDS_LIMIT), ODDS_LIMIT)
        longer += here
