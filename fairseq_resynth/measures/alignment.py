"""Dynamic time warping, for spectral distances and for the rhythm of another utterance."""

from collections.abc import Callable

import numpy as np

MOST_CELLS = 2**30  # a byte each: nine minutes against nine minutes of mel-cepstra


class TooLongError(ValueError):
    """Two sequences are too long to be aligned."""


def warping_path(
    cost: Callable[[np.ndarray, np.ndarray], np.ndarray], rows: int, columns: int
) -> np.ndarray:
    """The cheapest monotonic path from (0, 0) to (rows - 1, columns - 1): (P, 2) int64 indices.

    `cost` maps (C,) indices of rows and of columns to the (C,) costs of these cells. Each step advances one
    axis or both, at the cost of the cell that it enters (Sakoe and Chiba, 1978, symmetric without weights).
    Among equally cheap steps the diagonal one is taken, then the one along the second axis. Takes a byte of
    memory per cell. Raises ValueError without rows or columns, TooLongError for more than 2**30 cells.
    """
    if not rows * columns:
        raise ValueError(f"found {rows} rows and {columns} columns, expected one of each or more")
    if rows * columns > MOST_CELLS:
        raise TooLongError(
            f"{rows} and {columns} frames are too many to align by dynamic time warping, expected "
            f"{MOST_CELLS} pairs or fewer: cut the recordings into shorter ones"
        )
    steps = np.zeros((rows, columns), np.int8)
    before, last = np.full((2, rows + 1), np.inf)  # sums on two anti-diagonals, by row + 1
    before[0] = 0.0  # the start, diagonally before the first cell
    # The cells of an anti-diagonal depend on the two before it and not on each other.
    for diagonal in range(rows + columns - 1):
        first, stop = max(0, diagonal - columns + 1), min(rows, diagonal + 1)
        row = np.arange(first, stop)
        arriving = np.stack([before[first:stop], last[first + 1 : stop + 1], last[first:stop]])
        arriving += cost(row, diagonal - row)
        steps[row, diagonal - row] = arriving.argmin(0)
        before, last = last, np.full(rows + 1, np.inf)
        last[first + 1 : stop + 1] = arriving.min(0)
    path, cell = [], (rows - 1, columns - 1)
    back = ((1, 1), (0, 1), (1, 0))  # diagonal, left, up
    while cell != (0, 0):
        path.append(cell)
        down, right = back[steps[cell]]
        cell = cell[0] - down, cell[1] - right
    path.append(cell)
    return np.array(path[::-1])
