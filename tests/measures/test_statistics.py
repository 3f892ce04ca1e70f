import math

import numpy as np
import pytest
import scipy.stats

from fairseq_resynth.measures.statistics import equal_error_rate, mean_interval


def test_interval_against_scipy():
    values = np.random.default_rng(0).gamma(2, 1, 80)
    ours = mean_interval(values)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method="percentile", rng=1
    ).confidence_interval
    assert ours["mean"] == pytest.approx(values.mean())
    assert ours["low"] == pytest.approx(theirs.low, abs=0.05)
    assert ours["high"] == pytest.approx(theirs.high, abs=0.05)


def test_weights_pool_counts():
    # 1 error of 10 words and 9 of 10 000: 10 / 10 010, not the mean of the two rates
    figure = mean_interval([1 / 10, 9 / 10000], [10, 10000])
    assert figure["mean"] == pytest.approx(10 / 10010)


def test_undefined_values_are_left_out_and_counted():
    figure = mean_interval([1.0, math.nan, 3.0], [1, 1, 1])
    assert (figure["mean"], figure["count"], figure["undefined"]) == (2.0, 2, 1)
    assert mean_interval([1.0, 5.0], [1, 0])["mean"] == 1.0
    empty = mean_interval([math.nan])
    assert math.isnan(empty["mean"]) and empty["count"] == 0
    single = mean_interval([4.0])
    assert single["mean"] == 4.0 and math.isnan(single["low"])


def test_eer_by_hand():
    # at a threshold of 0.55 one of four targets is refused and one of four others accepted
    assert equal_error_rate([0.9, 0.8, 0.7, 0.4], [0.6, 0.3, 0.2, 0.1]) == pytest.approx(0.25)
    assert equal_error_rate([2, 3], [0, 1]) == 0
    assert equal_error_rate([0, 1], [2, 3]) == 1
    assert equal_error_rate([1, 1], [1, 1]) == pytest.approx(0.5)
    assert math.isnan(equal_error_rate([], [1.0]))


@pytest.mark.parametrize("seed", range(5))
def test_eer_against_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq

    rng = np.random.default_rng(seed)
    targets, others = rng.normal(1, 1, 37), rng.normal(0, 1, 53).round(seed % 3)
    false_accept, true_accept, _ = metrics.roc_curve(
        np.repeat([1, 0], [37, 53]), np.concatenate([targets, others]), drop_intermediate=False
    )
    curve = interp1d(false_accept, true_accept)
    expected = brentq(lambda x: 1 - x - curve(x), 0, 1)
    assert equal_error_rate(targets, others) == pytest.approx(expected, abs=0.02)
