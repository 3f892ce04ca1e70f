"""Normalisation by speaker: values, unknown names, degenerate statistics."""

import numpy as np
import pytest

from fairseq_resynth.data.pitch.statistics import STD_FLOOR, SpeakerStatistics

ROWS = [
    ("anna", np.array([0, 200, 220, 0], dtype=np.float32)),
    ("boris", np.array([100, 0, 140], dtype=np.float32)),
    ("anna", np.array([240], dtype=np.float32)),
]


def test_means_and_deviations_over_voiced_frames():
    statistics = SpeakerStatistics.from_frames(ROWS)
    anna = statistics.speakers["anna"]
    assert anna["f0_mean"] == pytest.approx(220) and anna["num_voiced"] == 3
    assert anna["f0_std"] == pytest.approx(np.std([200, 220, 240]))
    everyone = [200, 220, 240, 100, 140]
    assert statistics.overall["f0_mean"] == pytest.approx(np.mean(everyone))
    assert statistics.overall["f0_std"] == pytest.approx(np.std(everyone))


def test_saving_and_loading(tmp_path):
    statistics = SpeakerStatistics.from_frames(ROWS)
    statistics.save(tmp_path / "speakers.json")
    assert SpeakerStatistics.load(tmp_path / "speakers.json").to_dict() == statistics.to_dict()
    with pytest.raises(FileNotFoundError, match="Make it with `resynth f0"):
        SpeakerStatistics.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"speakers": {"anna": {"mean": 1}}, "global": {}}')
    with pytest.raises(ValueError, match=r"bad.json: speaker statistics lack 'f0_mean'"):
        SpeakerStatistics.load(tmp_path / "bad.json")


def test_normalizing_leaves_unvoiced_at_zero_and_inverts():
    statistics = SpeakerStatistics.from_frames(ROWS)
    f0 = np.array([0, 100, 140, 120], dtype=np.float32)
    normal = statistics.normalize(f0, "boris")
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, [0, -1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(statistics.denormalize(normal, "boris")[:3], f0[:3], rtol=1e-6)
    np.testing.assert_allclose(
        statistics.normalize(f0, None)[1],
        (100 - 180) / np.std([200, 220, 240, 100, 140]),
        rtol=1e-5,
    )


def test_conversion_moves_mean_and_deviation_and_keeps_voicing():
    statistics = SpeakerStatistics.from_frames(ROWS)
    moved = statistics.convert(np.array([0, 100, 140, 120]), "boris", "anna")
    std = np.std([200, 220, 240])
    np.testing.assert_allclose(moved, [0, 220 - std, 220 + std, 220], rtol=1e-5)


def test_unknown_speaker_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown speaker 'clara'; the F0 statistics have anna, boris"
    ):
        SpeakerStatistics.from_frames(ROWS).normalize(np.ones(3), "clara")


def test_one_voiced_frame_does_not_divide_by_zero_and_none_takes_the_global_pair():
    rows = [("one", np.array([150.0])), ("none", np.zeros(5)), ("more", np.array([100.0, 200.0]))]
    statistics = SpeakerStatistics.from_frames(rows)
    assert statistics.speakers["one"]["f0_std"] == 0
    np.testing.assert_allclose(statistics.normalize(np.array([152.0]), "one"), 2 / STD_FLOOR)
    assert statistics.speakers["none"] == {**statistics.overall, "num_voiced": 0}
    with pytest.raises(ValueError, match="no voiced frame in any utterance"):
        SpeakerStatistics.from_frames([("none", np.zeros(5))])
