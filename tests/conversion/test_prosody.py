"""Pitch and rhythm, by themselves: known contours in, known contours out."""

import numpy as np
import pytest

from fairseq_resynth.conversion import prosody
from fairseq_resynth.data.pitch.representations import (
    ContinuousF0,
    QuantileF0,
    ZscoreF0,
    make_representation,
)
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics

F0 = np.array([0, 0, 100, 110, 120, 0, 200, 180], np.float32)
ENTRY = {"f0_mean": 140.0, "f0_std": 40.0, "log_f0_mean": np.log(140.0), "log_f0_std": 0.3}


def semitones(f0, other):
    return 12 * np.log2(f0 / other)


def test_shift_scale_and_flatten_in_hertz():
    voiced = F0 > 0
    shifted = prosody.apply_pitch(F0, "shift=+3st")
    np.testing.assert_allclose(semitones(shifted[voiced], F0[voiced]), 3, atol=1e-4)
    assert not shifted[~voiced].any()
    np.testing.assert_allclose(prosody.apply_pitch(F0, "scale=0.5"), F0 / 2)
    flat = prosody.apply_pitch(F0, "flatten")
    assert flat[voiced].std() == 0 and flat[2] == pytest.approx(142) and not flat[0]
    assert prosody.apply_pitch(F0, None) is F0
    for text in ("shift=30st", "shift=99999st", "up", "scale=0", "from="):
        with pytest.raises(ValueError, match=r"expected shift=\+3st, scale=1.2, flatten or from="):
            prosody.parse_pitch(text)


def test_moving_between_voices_keeps_the_deviations_from_the_mean():
    target = {"f0_mean": 240.0, "f0_std": 20.0}
    moved = prosody.convert_f0(F0, ENTRY, target)
    np.testing.assert_allclose((moved[2:5] - 240) / 20, (F0[2:5] - 140) / 40, rtol=1e-5)
    assert (moved == 0).tolist() == (F0 == 0).tolist()


def test_pitch_beyond_what_was_trained_is_said_with_the_range():
    assert prosody.range_warning(F0, ENTRY) == ""
    note = prosody.range_warning(F0 * 2, ENTRY)
    assert "40% of the pitch" in note and "40 to 240 Hz" in note


def test_rate_stretches_units_and_pitch_together():
    units = np.repeat([4, 7, 9, 2], 5)
    f0 = np.repeat(np.array([100, 0, 200, 300], np.float32), 20)
    for rate in (0.25, 0.8, 1.7, 4):
        positions = prosody.rate_positions(len(units), rate)
        picked = prosody.nearest_indices(positions, len(units))
        warped = prosody.warp_f0(f0, positions, 320)
        assert len(picked) == round(20 / rate) and len(warped) == 4 * len(picked)
        wanted = {4: 100, 7: 0, 9: 200, 2: 300}
        held = np.array([wanted[unit] for unit in units[picked]]).repeat(4)
        assert np.mean(warped == held) >= 0.8
    with pytest.raises(ValueError, match="0.25 to 4"):
        prosody.check_rate(0.2)


@pytest.mark.parametrize("hop", [160, 200, 441])
def test_units_of_any_hop_carry_the_pitch_with_them(hop):
    f0 = np.linspace(100, 200, 1000).astype(np.float32)
    units = np.arange(1000 * 80 // hop)
    same = prosody.warp_f0(f0, prosody.rate_positions(len(units), 1.0), hop)
    assert len(same) == -(-len(units) * hop // 80)
    inner = slice(hop // 80 + 1, -hop // 80 - 1)  # the first and the last half unit are held
    np.testing.assert_array_equal(same[inner], f0[: len(same)][inner])
    slow = prosody.warp_f0(f0, prosody.rate_positions(len(units), 0.5), hop)
    wanted = np.interp((np.arange(len(slow)) + 0.5) / 2 - 0.5, np.arange(1000), f0)
    assert np.abs(slow - wanted)[inner].max() < 0.11  # one frame of the contour
    codes = np.arange(-(-len(units) * hop // 1280))
    slow_units, slow_codes = prosody.change_rate(units, codes, 0.5, hop, 1280)
    assert len(slow_units) == 2 * len(units)
    assert len(slow_codes) == -(-len(slow_units) * hop // 1280)


def test_durations_of_other_lengths_keep_the_runs():
    units = np.array([3, 3, 3, 3, 5, 5, 1])
    expanded = np.array([3, 3, 5, 5, 5, 5, 1, 1])
    positions = prosody.duration_positions(units, expanded)
    assert units[prosody.nearest_indices(positions, 7)].tolist() == expanded.tolist()
    assert (np.diff(positions) >= 0).all()
    with pytest.raises(ValueError, match="other units"):
        prosody.duration_positions(units, expanded[:-2])


def test_alignment_finds_the_same_sounds_at_other_times():
    rng = np.random.default_rng(0)
    runs = rng.permutation(40)
    units, others = (np.repeat(runs, rng.integers(1, 6, 40)) for _ in range(2))
    positions = prosody.align_units(units, others)
    assert (np.diff(positions) >= 0).all()
    assert np.mean(others[prosody.nearest_indices(positions, len(others))] == units) > 0.95


def test_a_borrowed_melody_keeps_this_voicing():
    other = np.linspace(100, 200, 80).astype(np.float32)
    other[10:20] = 0
    f0 = np.tile(np.array([150, 0], np.float32), 20)
    positions = prosody.rate_positions(20, 2.0)
    borrowed = prosody.transfer_f0(f0, other, positions, 320)
    assert len(borrowed) == 40 and ((borrowed > 0) == (f0 > 0)).all()
    voiced = borrowed[::2]
    assert (np.diff(voiced) > 0).all() and voiced[0] < 110 and voiced[-1] > 190
    with pytest.raises(ValueError, match="no frame of that recording is voiced"):
        prosody.transfer_f0(f0, np.zeros(80), positions, 320)


def test_continuous_log_f0_is_exact_and_keeps_a_voiced_mean_apart_from_unvoiced():
    representation = make_representation({"representation": "continuous"}, None, 2)
    values = representation.encode(F0, ENTRY)
    assert values.shape == (2, 8) and values[1].tolist() == [0, 0, 1, 1, 1, 0, 1, 1]
    assert values[0, 5] == pytest.approx((values[0, 4] + values[0, 6]) / 2)
    np.testing.assert_allclose(representation.decode(values, ENTRY), F0, rtol=1e-5)
    at_mean = np.full(4, 140.0, np.float32)
    again = representation.decode(representation.encode(at_mean, ENTRY), ENTRY)
    np.testing.assert_allclose(again, 140, rtol=1e-5)
    zscore = make_representation({}, None, 1)
    assert isinstance(zscore, ZscoreF0)
    assert not zscore.decode(zscore.encode(at_mean, ENTRY), ENTRY).any()  # the flaw of the z-score


def test_quantile_bins_hold_equal_counts_and_err_by_less_than_a_bin():
    rng = np.random.default_rng(0)
    f0 = np.repeat(np.exp(rng.normal(np.log(140), 0.3, 3200)), 4).astype(np.float32)
    bins = QuantileF0.fit([(f0, ENTRY)], 32, 320)
    codes = bins.encode(f0, ENTRY)
    assert len(codes) == 3200 and codes.min() == 1 and codes.max() == 32
    assert np.bincount(codes)[1:].tolist() == [100] * 32
    error = np.abs(semitones(bins.decode(codes, ENTRY), f0))
    assert np.median(error) < 0.3
    half = np.array([0, 0, 150, 150, 0, 0, 0, 150], np.float32)
    assert (bins.encode(half, ENTRY) > 0).tolist() == [True, False]
    again = make_representation(bins.describe(), None)
    assert again.encode(f0, ENTRY).tolist() == codes.tolist()
    with pytest.raises(ValueError, match="do not fill 32 bins"):
        QuantileF0.fit([(np.full(99, 140.0), ENTRY)], 32, 320)


def test_statistics_of_logarithms():
    entry = SpeakerStatistics.from_frames([("a", F0)]).speakers["a"]
    logs = np.log(F0[F0 > 0])
    assert entry["log_f0_mean"] == pytest.approx(logs.mean())
    assert entry["log_f0_std"] == pytest.approx(logs.std())
    older = {"f0_mean": 142.0, "f0_std": 40.0}  # of a speakers.json without logarithms
    f0 = np.full(4, 142.0, np.float32)
    representation = ContinuousF0()
    again = representation.decode(representation.encode(f0, older), older)
    np.testing.assert_allclose(again, 142, rtol=1e-5)


def test_coded_pitch_that_leaves_the_trained_range_is_warned_of(caplog):
    representation = ContinuousF0()
    values = representation.encode(F0, ENTRY)
    prosody.change_pitch(values, "shift=+1st", representation, ENTRY)
    assert not caplog.records
    prosody.change_pitch(values, "shift=+14st", representation, ENTRY)
    assert "trained on for this voice, 40 to 240 Hz" in caplog.text
