"""Dynamic time warping, for spectral distances and for the rhythm of another utterance."""

import numpy as np


def warping_path(cost: np.ndarray) -> np.ndarray:
    """The cheapest monotonic path through a (N, M) cost matrix: (P, 2) int64 indices from (0, 0) to the end.

    Each step advances one axis or both, at the cost of the cell that it enters (Sakoe and Chiba, 1978,
    symmetric without weights). Among equally cheap steps the diagonal one is taken, then the one along
    the second axis. Raises ValueError for an empty matrix.
    """
    rows, columns = cost.shape
    if not cost.size:
        raise ValueError(f"found a cost matrix of shape {cost.shape}, expected rows and columns")
    total = np.full((rows + 1, columns + 1), np.inf)
    total[1:, 1:] = cost
    steps = np.zeros(total.shape, np.int8)
    sums, origins = total.ravel(), steps.ravel()
    back = np.array([columns + 2, 1, columns + 1])  # cells back in memory: diagonal, left, up
    # The cells of an anti-diagonal depend on the two before it and not on each other.
    for diagonal in range(3, rows + columns + 1):
        first, last = max(1, diagonal - columns), min(rows, diagonal - 1)
        cells = np.arange(first, last + 1) * columns + diagonal
        arriving = sums[cells - back[:, None]] + sums[cells]
        origins[cells] = arriving.argmin(0)
        sums[cells] = arriving.min(0)
    path, cell = [], len(sums) - 1
    while cell != columns + 2:  # the first cell inside the margin
        path.append(cell)
        cell -= int(back[origins[cell]])
    path.append(cell)
    return np.stack(np.divmod(path[::-1], columns + 1), 1) - 1
