"""Equal error rate."""

from collections.abc import Sequence

import numpy as np


def equal_error_rate(target_scores: Sequence[float], other_scores: Sequence[float]) -> float:
    """The error rate at the threshold where as many targets are refused as others accepted.

    A trial is accepted at scores >= threshold. Between two thresholds the curve of false
    acceptances against false rejections is straight (its convex hull is not taken), as with
    scikit-learn's `roc_curve` and a root finder.

    Args:
        target_scores: of trials of the right speaker, higher is more alike.
        other_scores: of trials of other speakers.

    Returns:
        In [0, 1]; NaN if either is empty.
    """
    targets, others = np.sort(target_scores), np.sort(other_scores)
    if not len(targets) or not len(others):
        return float("nan")
    thresholds = np.append(np.unique(np.concatenate([targets, others])), np.inf)
    rejected = np.searchsorted(targets, thresholds) / len(targets)
    accepted = 1 - np.searchsorted(others, thresholds) / len(others)
    # rejected grows and accepted falls along the thresholds; they cross within one step
    after = int(np.argmax(rejected >= accepted))
    if after == 0:
        return float((rejected[0] + accepted[0]) / 2)
    before = after - 1
    gap = accepted[before] - rejected[before]
    step = gap / (gap + rejected[after] - accepted[after])
    return float(rejected[before] + step * (rejected[after] - rejected[before]))
