"""Means with bootstrap confidence intervals, and the equal error rate."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_CELLS = 1_000_000  # indices drawn at once, to bound the memory


def bootstrap(
    statistic: Callable[[np.ndarray], float], count: int, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval over utterances (Efron and Tibshirani, 1993, Section 13): (lower, upper).

    `statistic` maps (count,) indices, drawn with replacement, to a number. NaN for fewer than two of them.
    """
    if count < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, count, count)) for _ in range(resamples)]
    return _percentiles(np.array(values))


def mean_interval(
    values: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray | None = None
) -> dict[str, float]:
    """Weighted mean of the defined values with its interval by bootstrap over utterances.

    Args:
        values: one per utterance; NaN is left out and counted.
        weights: non-negative, one per utterance (words for WER, frames for VDE); None: all equal.

    Returns `mean`, `low`, `high`, `count` (values used) and `undefined` (values left out).
    """
    found = np.asarray(values, dtype=float)
    counts = np.ones_like(found) if weights is None else np.asarray(weights, dtype=float)
    kept = np.isfinite(found) & np.isfinite(counts) & (counts > 0)
    found, counts = found[kept], counts[kept]
    result = {"count": int(kept.sum()), "undefined": int((~kept).sum())}
    if not len(found):
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), **result}

    totals = found * counts
    means = [totals[draw].sum(1) / counts[draw].sum(1) for draw in _draws(len(found))]
    low, high = _percentiles(np.concatenate(means)) if means else (float("nan"), float("nan"))
    mean = float(totals.sum() / counts.sum())
    return {"mean": mean, "low": low, "high": high, **result}


def _draws(count: int) -> Iterator[np.ndarray]:
    """Yields the indices of all resamples in blocks (resamples, count); none for a single value."""
    generator = np.random.default_rng(0)
    block = max(1, min(RESAMPLES, _CELLS // count))
    for start in range(0, RESAMPLES if count > 1 else 0, block):
        yield generator.integers(0, count, (min(block, RESAMPLES - start), count))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    margin = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(values, [margin, 100 - margin])
    return float(low), float(high)


def equal_error_rate(target_scores: Sequence[float], other_scores: Sequence[float]) -> float:
    """The error rate, in [0, 1], where false rejections are as frequent as false acceptances; NaN without
    scores.

    A trial is accepted if its score is at least the threshold. The curve of both rates is interpolated
    linearly between thresholds, as with scikit-learn's `roc_curve` and a root finder, not its convex hull.
    """
    targets, others = np.sort(target_scores), np.sort(other_scores)
    if not len(targets) or not len(others):
        return float("nan")
    thresholds = np.append(np.unique(np.concatenate([targets, others])), np.inf)
    rejected = np.searchsorted(targets, thresholds) / len(targets)
    accepted = 1 - np.searchsorted(others, thresholds) / len(others)
    # Along the thresholds `rejected` grows and `accepted` falls; they cross within one step.
    after = int(np.argmax(rejected >= accepted))
    if after == 0:
        return float((rejected[0] + accepted[0]) / 2)
    before = after - 1
    gap = accepted[before] - rejected[before]
    step = gap / (gap + rejected[after] - accepted[after])
    return float(rejected[before] + step * (rejected[after] - rejected[before]))
