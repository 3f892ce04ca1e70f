"""A gated recurrent network in integers: the same bits on every processor, thread count and library version.

One step a run of equal units. Weights and activations are Q12, sums int32 that cannot overflow (checked
when loading), gates come from tables, so the order of summation does not matter and nothing is rounded
by a floating point unit.
"""

from dataclasses import dataclass, fields

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
    """Weights. H: hidden units; A units, the symbol A ends the file; R: longest run; D: inner layer.

    Attributes:
        unit_input: (A + 1, 3H) int32 Q12, by the run's unit, of the gates reset, update and new; row A
            at the start.
        run_input: (R + 1, 3H) int32 Q12, the same by the run's length.
        recurrent: (3H, H) int32 Q12.
        recurrent_bias: (H,) int32 Q12, of the new gate, inside the reset product.
        unit_output: (A + 1, H) int32 Q12, to log2 probabilities.
        unit_output_bias: (A + 1,) int32 Q12.
        run_hidden: (D, H) int32 Q12.
        run_hidden_unit: (A + 1, D) int32 Q12, by the unit whose run it is.
        run_output: (R + 1, D) int32 Q12, to log2 probabilities of the run's length, R for R or longer.
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
    def hidden_size(self) -> int:
        """H."""
        return self.recurrent.shape[1]

    @property
    def longest_run(self) -> int:
        """R."""
        return len(self.run_input) - 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the weights by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def check(self, num_units: int) -> None:
        """Refuses weights of wrong shapes, or large enough for a sum to leave int32.

        Raises:
            ValueError: which array.
        """
        hidden, depth, runs = self.hidden_size, len(self.run_hidden), len(self.run_input)
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
        for name, array in self.arrays().items():
            sums = np.abs(array.astype(np.int64)).sum(axis=-1)
            summed = name in ("recurrent", "unit_output", "run_hidden")
            largest = sums.max(initial=0) if summed else np.abs(array).max(initial=0)
            if runs < 2 or array.shape != shapes[name] or largest >= 1 << 19:
                raise ValueError(f"the network array {name!r} of the context model is damaged")


@njit(cache=True)
def _multiply(matrix: np.ndarray, vector: np.ndarray, out: np.ndarray) -> None:
    for row in range(matrix.shape[0]):
        total = np.int32(0)
        for column in range(matrix.shape[1]):
            total = np.int32(total + np.int32(matrix[row, column] * vector[column]))
        out[row] = total


@njit(cache=True)
def step(
    unit_row: np.ndarray,
    run_row: np.ndarray,
    recurrent: np.ndarray,
    recurrent_bias: np.ndarray,
    state: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Feeds one run to the network, in place.

    Args:
        unit_row, run_row: (3H,) int32, rows of `unit_input` and `run_input`.
        recurrent, recurrent_bias: as in `IntegerNetwork`.
        state: (H,) int32 Q12.
        sums: (3H,) int32, scratch.
    """
    size = len(state)
    _multiply(recurrent, state, sums)
    for row in range(size):
        reset_sum = unit_row[row] + run_row[row] + (sums[row] >> GATE_BITS)
        update_sum = unit_row[size + row] + run_row[size + row] + (sums[size + row] >> GATE_BITS)
        reset, update = SIGMOID[gate_index(reset_sum)], SIGMOID[gate_index(update_sum)]
        inner = (sums[2 * size + row] >> GATE_BITS) + recurrent_bias[row]
        new_sum = unit_row[2 * size + row] + run_row[2 * size + row] + (reset * inner >> GATE_BITS)
        new = TANGENT[gate_index(new_sum)]
        state[row] = new + (update * (state[row] - new) + (1 << 11) >> GATE_BITS)


@njit(cache=True)
def unit_logits(
    output: np.ndarray, bias: np.ndarray, state: np.ndarray, sums: np.ndarray, out: np.ndarray
) -> None:
    """Writes log2 probabilities of the next unit up to a constant to `out` (A + 1,) int64, Q16."""
    _multiply(output, state, sums)
    for symbol in range(len(out)):
        out[symbol] = (sums[symbol] >> (2 * GATE_BITS - 16)) + (np.int64(bias[symbol]) << 4)


@njit(cache=True)
def run_logits(
    hidden: np.ndarray,
    hidden_unit: np.ndarray,
    output: np.ndarray,
    bias: np.ndarray,
    state: np.ndarray,
    sums: np.ndarray,
    out: np.ndarray,
) -> None:
    """Writes log2 probabilities of the run's length up to a constant to `out` (R + 1,) int64, Q16.

    Args:
        hidden, output, bias: as in `IntegerNetwork`.
        hidden_unit: (D,) int32, the row of the run's unit in `run_hidden_unit`.
    """
    depth = len(hidden_unit)
    _multiply(hidden, state, sums)
    layer = np.empty(depth, np.int32)
    for row in range(depth):
        layer[row] = max((sums[row] >> GATE_BITS) + hidden_unit[row], 0)
    for length in range(len(out)):
        total = np.int64(bias[length]) << GATE_BITS
        for row in range(depth):
            total += np.int64(output[length, row]) * layer[row]
        out[length] = total >> (2 * GATE_BITS - 16)


@njit(cache=True)
def ending_odds(lengths: np.ndarray, odds: np.ndarray) -> None:
    """Turns log2 probabilities of a run's length into log2 odds of its end after each frame.

    Args:
        lengths: (R + 1,) int64 Q16, up to a constant; length 0 is ignored.
        odds: (R + 1,) int64 Q16, written: odds[r] = log2 P(length = r) / P(length > r), for 0 < r < R.
    """
    best = lengths[1:].max()
    longer = 0
    for length in range(len(lengths) - 1, 0, -1):
        here = power_of_two(lengths[length] - best)
        odds[length] = logarithm(max(here, 1)) - logarithm(max(longer, 1))
        odds[length] = min(max(odds[length], -ODDS_LIMIT), ODDS_LIMIT)
        longer += here
