"""Means with bootstrap confidence intervals, and the equal error rate."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
PERCENTILES = 50 * (1 - 0.95), 100 - 50 * (1 - 0.95)  # of a 95 % interval
_CELLS = 1_000_000  # indices drawn at once, to bound the memory


def bootstrap(
    statistic: Callable[[np.ndarray], Sequence[float]], count: int, resamples: int = RESAMPLES
) -> dict[str, float]:
    """95 % percentile interval over utterances (Efron and Tibshirani, 1993, Section 13): `low`, `high`.
    `statistic` maps (n, count) indices, each row drawn with replacement, to n numbers. The interval is NaN
    for fewer than two utterances."""
    if count < 2:
        return {"low": float("nan"), "high": float("nan")}
    generator, values = np.random.default_rng(0), []
    block = max(1, _CELLS // count)
    for start in range(0, resamples, block):
        size = min(block, resamples - start), count
        values.extend(statistic(generator.integers(0, count, size)))
    low, high = np.nanpercentile(values, PERCENTILES)
    return {"low": float(low), "high": float(high)}


def mean_interval(
    values: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray | None = None
) -> dict[str, float]:
    """Weighted mean of the defined values with its interval by bootstrap over utterances.

    `values` are one per utterance, as are the non-negative `weights` (words for WER, frames for VDE), which
    are equal by default. Returns `mean`, `low`, `high`, `count` (values used) and `undefined` (values left
    out, as they are NaN or weigh nothing).
    """
    found = np.asarray(values, dtype=float)
    counts = np.ones_like(found) if weights is None else np.asarray(weights, dtype=float)
    kept = np.isfinite(found) & np.isfinite(counts) & (counts > 0)
    counts = counts[kept]
    totals = found[kept] * counts
    bounds = bootstrap(lambda draw: totals[draw].sum(1) / counts[draw].sum(1), len(totals))
    mean = float(totals.sum() / counts.sum()) if len(totals) else float("nan")
    return {"mean": mean, **bounds, "count": len(totals), "undefined": int((~kept).sum())}


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
