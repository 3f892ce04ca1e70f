import math

import numpy as np
import pytest

from fairseq_resynth.measures import f0_errors as f0

# By hand, 10 frames: 2 voicing errors (frames 3 and 8); voiced in both: 0 1 2 5 6 7, of which frame
# 2 (130/100) and frame 7 (150/200) are more than 20 % off and frame 6 (240/200) is exactly 20 %:
# not gross.
REFERENCE = np.array([100, 100, 100, 100, 0, 200, 200, 200, 0, 0.0])
ESTIMATE = np.array([100, 110, 130, 0, 0, 200, 240, 150, 90, 0.0])


def test_hand_worked_case():
    errors = f0.f0_errors(REFERENCE, ESTIMATE)
    assert errors["vde"] == pytest.approx(2 / 10)
    assert errors["gpe"] == pytest.approx(2 / 6)
    assert errors["ffe"] == pytest.approx(4 / 10)
    squares = [math.log(r) ** 2 for r in (1, 1.1, 1.3, 1, 1.2, 0.75)]
    assert errors["log_f0_rmse"] == pytest.approx(math.sqrt(sum(squares) / 6))
    assert (errors["frames"], errors["frames_both_voiced"]) == (10, 6)


def test_equal_tracks_have_no_error():
    errors = f0.f0_errors(REFERENCE, REFERENCE)
    assert [errors[k] for k in ("vde", "gpe", "ffe", "log_f0_rmse")] == [0, 0, 0, 0]
    assert errors["log_f0_correlation"] == pytest.approx(1)


def test_a_constant_shift_keeps_the_correlation_and_moves_the_rmse():
    errors = f0.f0_errors(REFERENCE, REFERENCE * 2 ** (1 / 12))
    assert errors["log_f0_correlation"] == pytest.approx(1)
    assert errors["log_f0_rmse"] == pytest.approx(math.log(2) / 12)
    assert errors["ffe"] == 0


def test_against_mir_eval():
    melody = pytest.importorskip("mir_eval.melody")
    rng = np.random.default_rng(0)
    reference = rng.uniform(80, 300, 500) * (rng.random(500) > 0.3)
    estimate = reference * rng.uniform(0.7, 1.3, 500) * (rng.random(500) > 0.1)
    estimate[::17] = 120
    recall, false_alarm = melody.voicing_measures(reference > 0, estimate > 0)
    voiced = np.sum(reference > 0)
    wrong = (1 - recall) * voiced + false_alarm * (len(reference) - voiced)
    assert f0.f0_errors(reference, estimate)["vde"] == pytest.approx(wrong / 500)
    # mir_eval's raw pitch accuracy with the tolerance of 20 % above, in cents, on upward errors
    # only
    up = np.where((reference > 0) & (estimate > 0) & (estimate < reference), reference, estimate)
    both = (reference > 0) & (up > 0)
    cents = [melody.hz2cents(track[both]) for track in (reference, up)]
    ones = np.ones(both.sum(), bool)
    accuracy = melody.raw_pitch_accuracy(
        ones, cents[0], ones, cents[1], cent_tolerance=1200 * math.log2(1.2)
    )
    assert f0.f0_errors(reference, up)["gpe"] == pytest.approx(1 - accuracy)


@pytest.mark.parametrize("estimate", [np.zeros(10), REFERENCE * 0])
def test_silence_is_undefined_not_zero(estimate):
    errors = f0.f0_errors(REFERENCE, estimate)
    assert errors["vde"] == errors["ffe"] == pytest.approx(7 / 10)
    assert all(math.isnan(errors[k]) for k in ("gpe", "log_f0_rmse", "log_f0_correlation"))
    both_silent = f0.f0_errors(estimate, estimate)
    assert both_silent["vde"] == both_silent["ffe"] == 0


def test_flat_contour_has_no_correlation():
    errors = f0.f0_errors(np.full(50, 123.4), np.linspace(100, 200, 50))
    assert math.isnan(errors["log_f0_correlation"])


def test_lengths():
    longer = np.concatenate([ESTIMATE, np.full(f0.TOLERANCE_FRAMES, 77.0)])
    assert f0.f0_errors(REFERENCE, longer) == f0.f0_errors(REFERENCE, ESTIMATE)
    with pytest.raises(ValueError, match="10 and 51 frames, more than 40 apart"):
        f0.align(REFERENCE, np.append(longer, 77.0))


@pytest.mark.parametrize("bad", [[], [[100.0]], [-1.0], [math.nan]])
def test_bad_tracks_are_refused(bad):
    with pytest.raises(ValueError, match="reference F0"):
        f0.align(np.array(bad), ESTIMATE)
