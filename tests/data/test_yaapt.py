"""YAAPT's compiled parts give the library's F0 to the last bit."""

import importlib.metadata

import numpy as np
import pytest
import soundfile
from amfm_decompy import basic_tools, pYAAPT
from small_corpus import SPEECH

from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.data.pitch.yaapt import COMPARED_VERSIONS, pairwise_sum, yaapt_module

SETTINGS = {
    "frame_length": 20.0,
    "frame_space": 5.0,
    "nccf_thresh1": 0.25,
    "tda_frame_length": 25.0,
}
# 8 files of eight languages, 1 to 2 s each
FILES = sorted(SPEECH.rglob("*.flac"), key=lambda path: path.stat().st_size)[:40:5]


def track(wav: np.ndarray, use_compiled: bool, low: float = 60.0, high: float = 400.0):
    signal = basic_tools.SignalObj(np.pad(wav.astype(np.float64), 160), 16000.0)
    module = yaapt_module() if use_compiled else pYAAPT
    return module.yaapt(signal, **SETTINGS, f0_min=low, f0_max=high).samp_values


def sounds() -> dict[str, np.ndarray]:
    rng, time = np.random.default_rng(0), np.arange(12000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * 200 * time)
    gap = np.where((time > 0.3) & (time < 0.5), 0, 2 * (120 * time % 1) - 1)
    return {"noise": rng.standard_normal(12000), "tone": tone, "sawtooth and digital silence": gap}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_speech(path):
    wav = soundfile.read(path, dtype="float32")[0]
    wav = wav * (0.95 / np.abs(wav).max())
    expected = track(wav, False)
    assert np.array_equal(track(wav, True), expected)
    assert (expected > 0).any()


@pytest.mark.parametrize("name", list(sounds()))
def test_sounds_of_ties_and_zeros(name):
    with np.errstate(all="ignore"):
        assert np.array_equal(track(sounds()[name], True), track(sounds()[name], False))


def test_another_range():
    wav = soundfile.read(FILES[0], dtype="float32")[0]
    assert np.array_equal(track(wav, True, 90, 300), track(wav, False, 90, 300))


def test_another_version_runs_as_it_is(monkeypatch):
    assert yaapt_module().path1.__module__ == "fairseq_resynth.data.pitch.yaapt"
    assert importlib.metadata.version("amfm_decompy") in COMPARED_VERSIONS
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.99")
    module = yaapt_module.__wrapped__()
    assert module.path1.__module__ == module.time_track.__module__ == "amfm_decompy.pYAAPT"


@pytest.mark.parametrize("count", [1, 7, 8, 21, 127, 128, 129, 255, 256, 257, 400, 511, 512])
def test_sums_have_numpys_order(count):
    values = np.random.default_rng(count).standard_normal(count + 3)
    assert pairwise_sum(values, 3, count) == values[3:].sum()


def test_extraction_uses_it():
    wav = soundfile.read(FILES[0], dtype="float32")[0]
    expected = track(wav * (0.95 / np.abs(wav).max()), False)
    assert np.allclose(extract_f0(wav), expected[: len(extract_f0(wav))], rtol=1e-6)


def test_a_range_below_what_a_frame_can_hold_is_one_sentence():
    sawtooth = 2 * (120 * np.arange(16000) / 16000 % 1) - 1
    with pytest.raises(ValueError, match="400 samples per frame do not contain a period of 30 Hz"):
        extract_f0(sawtooth, f0_min=30)
