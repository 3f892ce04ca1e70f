"""Sums in compiled loops with numpy's own order of additions, so that results agree to the last bit."""

import numpy as np
from numba import njit

compiled = njit(cache=True, error_model="numpy")  # 0 / 0 is NaN, as in numpy
_BLOCK = 128  # numpy adds so many in eight partial sums, and more as the sum of two halves


@compiled
def _block_sum(values: np.ndarray, start: int, count: int) -> float:
    """Sums in eight parts."""
    a, b, c, d, e, f, g, h = (0.0,) * 8
    done = start + count - count % 8
    for i in range(start, done, 8):
        a, b, c, d = a + values[i], b + values[i + 1], c + values[i + 2], d + values[i + 3]
        e, f, g, h = e + values[i + 4], f + values[i + 5], g + values[i + 6], h + values[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(done, start + count):
        total += values[i]
    return total


@compiled
def _half(count: int) -> int:
    return count // 2 - count // 2 % 8


# One function a level: numba's cache cannot load a function that calls itself.
@compiled
def _sum_of_two(values: np.ndarray, start: int, count: int) -> float:
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half = _half(count)
    return _block_sum(values, start, half) + _block_sum(values, start + half, count - half)


@compiled
def _sum_of_four(values: np.ndarray, start: int, count: int) -> float:
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half = _half(count)
    return _sum_of_two(values, start, half) + _sum_of_two(values, start + half, count - half)


@compiled
def pairwise_sum(values: np.ndarray, start: int, count: int) -> float:
    """Returns the sum of `count` values, up to 900, as `np.sum` of a contiguous row adds them."""
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half = _half(count)
    return _sum_of_four(values, start, half) + _sum_of_four(values, start + half, count - half)
