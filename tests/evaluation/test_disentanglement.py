"""The measurement itself, on a vocoder that does what it is told, and on ones that do not."""

import numpy as np
import pytest

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.evaluation.disentanglement import (
    DisentanglementTest,
    f0_deviation,
    f0_shift,
    unit_agreement,
)
from fairseq_resynth.inference.system import PitchStream

HOP = 320
SPEAKERS = ("anna", "boris")
MARKS = {"anna": 6500.0, "boris": 7300.0}  # Hz of a quiet tone that tells the voice
UNIT_TONES = 3000 + 200.0 * np.arange(10)  # Hz of a quiet tone that tells the unit
STATISTICS = {
    "speakers": {
        "anna": {"f0_mean": 200.0, "f0_std": 25.0, "num_voiced": 9},
        "boris": {"f0_mean": 130.0, "f0_std": 16.0, "num_voiced": 9},
    },
    "global": {"f0_mean": 165.0, "f0_std": 40.0, "num_voiced": 18},
}
STREAMS = StreamSpec(
    HOP,
    10,
    speakers=SPEAKERS,
    f0_channels=2,
    f0_codes={"representation": "continuous"},
    speaker_statistics=STATISTICS,
)


def strength(wav, frequency):
    time = np.arange(len(wav)) / 16000
    return np.abs(np.exp(-2j * np.pi * frequency * time) @ wav) / len(wav)


def embed(wav):
    vector = np.array([strength(wav, MARKS[name]) for name in SPEAKERS])
    return vector / np.linalg.norm(vector)


class Vocoder:
    """Harmonics at the F0, a tone for the unit and one for the speaker; it may ignore any of them."""

    def __init__(self, deaf_to: str = ""):
        self.deaf_to = deaf_to
        self.streams, self.pitch = STREAMS, PitchStream(STREAMS, None)
        self.statistics = self.pitch.statistics

    def decode_all(self, rows):
        return [self.speak(row) for row in rows]

    def units(self, wav):
        frames = wav[: len(wav) // HOP * HOP].reshape(-1, HOP) * np.hanning(HOP)
        tones = np.exp(-2j * np.pi * np.outer(UNIT_TONES, np.arange(HOP)) / 16000)
        return np.abs(frames @ tones.T).argmax(1)

    def speak(self, speech):
        name = "anna" if self.deaf_to == "speaker" else speech.speaker
        f0 = self.pitch.representation.decode(speech.f0, self.statistics.entry(name))
        if self.deaf_to == "pitch":
            f0 = np.where(f0 > 0, 150 + 30 * np.sin(np.arange(len(f0)) / 15), 0)
        return synthesize(speech.units, f0, name)


def synthesize(units, f0, name):
    f0 = np.repeat(f0, 80)[: len(units) * HOP]
    time = np.arange(len(f0)) / 16000
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 6)) * (f0 > 0)
    unit_tone = np.sin(2 * np.pi * np.repeat(UNIT_TONES[units], HOP) * time)
    mark = np.sin(2 * np.pi * MARKS[name] * time)
    return (0.2 * harmonics + 0.02 * unit_tone + 0.02 * mark).astype(np.float32)


@pytest.fixture(scope="module")
def wav():
    units = np.repeat(np.random.default_rng(0).integers(10, size=20), 4)
    f0 = 200 + 30 * np.sin(np.arange(320) / 20)
    f0[:60] = 0
    f0[200:230] = 0
    return synthesize(units, f0, "anna")


def measure(vocoder, wav):
    means = {name: np.eye(2)[index] for index, name in enumerate(SPEAKERS)}
    test = DisentanglementTest(vocoder, means, embed)
    test.add(wav, "anna")
    return test.result()


def test_a_vocoder_that_obeys_passes_every_check(wav):
    result = measure(Vocoder(), wav)
    figures = result["figures"]
    assert all(result["checks"].values()) and len(result["checks"]) == 7
    assert figures["shift"] == pytest.approx(3, abs=0.1)
    assert figures["rate_length"] == pytest.approx(1.25, abs=0.005)
    assert figures["deviation_flat"] < 0.2 < 1 < figures["deviation"]
    assert figures["eer"] == 0 and figures["target_nearer"] == 1
    assert figures["similarity_to_target"] > 0.9 > 0.3 > figures["similarity_to_source"]
    assert min(figures[name] for name in ("units", "units_flat", "units_shifted")) > 0.95


def failed(result):
    return [what for what, held in result["checks"].items() if not held]


def test_a_vocoder_deaf_to_the_speaker_or_the_pitch_fails_there(wav):
    assert failed(measure(Vocoder("speaker"), wav)) == [
        "after conversion the target is nearer than the source"
    ]
    assert failed(measure(Vocoder("pitch"), wav)) == [
        "flatten leaves less than 50% of the F0's standard deviation",
        "a shift of 3 semitones is 3 within 0.5",
    ]


def test_one_person_under_two_names_is_not_told_apart(wav):
    means = {"anna": np.array([1.0, 0]), "boris": np.array([0, 1.0])}
    test = DisentanglementTest(Vocoder(), means, embed, same=[["anna", "boris"]])
    test.add(wav, "anna")
    assert "eer" not in test.result()["figures"]
    with pytest.raises(ValueError, match="nothing to measure"):
        DisentanglementTest(Vocoder(), means, embed).result()
    with pytest.raises(ValueError, match="--same names borys; the speakers are anna, boris"):
        DisentanglementTest(Vocoder(), means, embed, same=[["anna", "borys"]])


def test_figures_of_contours_and_units():
    f0 = np.array([0, 100, 200, 0], np.float32)
    assert f0_deviation(f0) == pytest.approx(6) and np.isnan(f0_deviation(f0 * 0))
    assert f0_shift(f0, f0 * 2 ** (3 / 12)) == pytest.approx(3, abs=1e-4)
    assert np.isnan(f0_shift(f0, f0[::-1] * 0))
    assert unit_agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 9])) == pytest.approx(2 / 3)
