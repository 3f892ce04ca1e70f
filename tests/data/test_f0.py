"""F0: accuracy on known tones, frame counts, and the cache against direct extraction."""

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import read_manifest, write_manifest
from fairseq_resynth.data.pitch import extraction as f0_module
from fairseq_resynth.data.pitch.extraction import (
    F0Cache,
    F0Options,
    extract_f0,
    num_frames,
    require_method,
)
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.preparation.f0 import build_f0, write_speaker_statistics

SPEECH = Path(__file__).resolve().parents[2] / "examples/asterisk/speech"
METHODS = ["yaapt", "harvest", "dio", "swift"]


def harmonic_tone(hertz, samples=16000):
    """A sum of harmonics falling by 1/k, in phases that are not all equal; hertz may vary over time."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, samples)) / 16000
    return sum(np.sin(k * phase + k * k) / k for k in range(1, 15)).astype(np.float32) * 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hertz", [110.0, 200.0, 300.0])
def test_a_tone_of_known_pitch(method, hertz):
    f0 = extract_f0(harmonic_tone(hertz), method)
    # YAAPT finds whole lags, and one more than the true one: 1.9 % at 300 Hz.
    tolerance = {"yaapt": 0.02, "harvest": 0.002, "dio": 0.002, "swift": 0.01}[method]
    inner = f0[5:-5]
    assert (inner > 0).mean() > 0.98
    assert np.median(np.abs(inner[inner > 0] - hertz)) < tolerance * hertz


@pytest.mark.parametrize("method", METHODS)
def test_frames_are_centered_on_multiples_of_the_hop(method):
    hertz = np.linspace(150, 250, 16000)
    f0 = extract_f0(harmonic_tone(hertz), method)
    error = (f0 - hertz[::80])[10:-10]
    assert np.abs(np.median(error)) < 4  # a shift by 10 frames would be 5 Hz
    assert np.percentile(np.abs(error), 90) < 6


def test_voiced_and_silent_halves():
    wav = np.concatenate([harmonic_tone(180), np.zeros(16000, dtype=np.float32)])
    f0 = extract_f0(wav)
    assert (f0[10:190] > 0).mean() > 0.95 and not f0[210:].any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [320, 399, 400, 401, 1280, 1281, 8960, 16001])
def test_frame_counts(method, samples):
    f0 = extract_f0(harmonic_tone(200.0, samples), method)
    assert f0.shape == (-(-samples // 80),) and f0.dtype == np.float32
    assert np.isfinite(f0).all() and f0.min() >= 0


def test_yaapt_is_called_with_the_settings_of_the_paper():
    from amfm_decompy import basic_tools, pYAAPT

    wav = read_audio(SPEECH / "italian/pbx-invalid.flac")
    signal = basic_tools.SignalObj(
        np.pad(wav.astype(float) * (0.95 / np.abs(wav).max()), 160), 16000.0
    )
    settings = {
        "frame_length": 20.0,
        "frame_space": 5.0,
        "nccf_thresh1": 0.25,
        "tda_frame_length": 25.0,
    }
    expected = pYAAPT.yaapt(signal, **settings).samp_values
    np.testing.assert_allclose(extract_f0(wav), expected, rtol=1e-6)


def test_level_does_not_matter():
    wav = read_audio(SPEECH / "italian/pbx-invalid.flac")[:16000]
    np.testing.assert_array_equal(extract_f0(wav * np.float32(0.25)), extract_f0(wav))


def test_silence_and_faint_noise_are_unvoiced_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not extract_f0(np.zeros(16000)).any()
        assert not extract_f0(1e-4 * np.random.default_rng(0).standard_normal(16000)).any()


@pytest.mark.parametrize(
    "wav, message",
    [
        (np.ones(3), r"found samples of shape \(3,\), expected \(320,\) or longer"),
        (np.ones((1, 16000)), r"found samples of shape \(1, 16000\)"),
        (np.full(16000, np.nan), "NaN or infinity"),
    ],
)
def test_input_that_has_no_f0(wav, message):
    with pytest.raises(ValueError, match=message):
        extract_f0(wav)


def test_a_failing_tracker_is_a_named_error(monkeypatch):
    monkeypatch.setitem(f0_module.METHODS, "yaapt", lambda wav, options: [][1])
    with pytest.raises(ValueError, match="yaapt failed: IndexError"):
        extract_f0(harmonic_tone(200.0))
    monkeypatch.setitem(f0_module.METHODS, "yaapt", lambda wav, options: np.full(200, np.nan))
    with pytest.raises(ValueError, match="expected frequencies"):
        extract_f0(harmonic_tone(200.0))
    monkeypatch.setitem(f0_module.METHODS, "yaapt", lambda wav, options: np.zeros(150))
    with pytest.raises(ValueError, match="gave 150 frames for 16000 samples, expected 200"):
        extract_f0(harmonic_tone(200.0))


@pytest.mark.parametrize("method", ["dio", "harvest"])
def test_without_pyworld_the_message_names_the_extra(monkeypatch, method):
    monkeypatch.setitem(__import__("sys").modules, "pyworld", None)
    message = rf"{method} needs pyworld .*`pip install 'fairseq_resynth\[eval\]'`, or use the method yaapt"
    with pytest.raises(ValueError, match=message):
        require_method(method)
    with pytest.raises(ValueError, match=message):
        extract_f0(harmonic_tone(200.0), method)
    require_method("yaapt")


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'crepe' is unknown, expected yaapt, harvest, dio, swift"):
        require_method("crepe")


@pytest.mark.parametrize("options", [("crepe", 60, 400), ("yaapt", 400, 60), ("yaapt", 0, 400)])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="expected"):
        F0Options(*options)


def test_long_recordings_in_blocks_agree_with_the_whole(monkeypatch):
    wav = harmonic_tone(np.linspace(120, 240, 16000 * 6), 16000 * 6)
    whole = extract_f0(wav)
    monkeypatch.setattr(f0_module, "_BLOCK", 16000 * 2)
    monkeypatch.setattr(f0_module, "_CONTEXT", 8000)
    blocks = extract_f0(wav)
    assert blocks.shape == whole.shape
    assert np.mean(np.abs(blocks - whole) > 2) < 0.02


# The cache


def write_speech_data(folder: Path, names=("english/pbx-invalid", "italian/pbx-invalid")) -> Path:
    rows = [(f"{name}.flac", soundfile.info(SPEECH / f"{name}.flac").frames) for name in names]
    for split in ("train", "valid"):
        write_manifest(folder / f"{split}.tsv", SPEECH, rows)
        (folder / f"{split}.speaker").write_text(
            "".join(f"{name.split('/')[0]}\n" for name in names)
        )
    return folder


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    data = write_speech_data(tmp_path_factory.mktemp("data"))
    build_f0(data, "train", F0Options())
    return data


def test_the_cache_equals_direct_extraction(cached):
    manifest = read_manifest(cached / "train.tsv")
    cache = F0Cache(cached, "train", manifest)
    assert len(cache) == 2 and list(cache.lengths) == [-(-n // 80) for n in manifest.num_samples]
    for row in range(2):
        np.testing.assert_array_equal(cache[row], extract_f0(read_audio(manifest.path(row))))
    np.testing.assert_array_equal(cache.slice(1, 10, 20), cache[1][10:30])
    assert len(cache.slice(1, int(cache.lengths[1]) - 5, 20)) == 5
    with pytest.raises(IndexError):
        cache[2]


def test_a_pickled_cache_maps_the_file_again(cached):
    cache = F0Cache(cached, "train", read_manifest(cached / "train.tsv"))
    pickled = pickle.dumps(cache)
    assert len(pickled) < 4000 < cache.lengths.sum() * 4
    np.testing.assert_array_equal(pickle.loads(pickled)[1], cache[1])


def test_a_missing_cut_or_foreign_cache_is_refused(cached, tmp_path):
    manifest = read_manifest(cached / "train.tsv")
    with pytest.raises(FileNotFoundError, match=r"valid.npy does not exist. Run `resynth f0 .*`"):
        F0Cache(cached, "valid", manifest)
    data = write_speech_data(tmp_path)
    build_f0(data, "train", F0Options("dio"))
    path = data / "f0/train.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(ValueError, match=r"train.npy is not readable as an array.*Run `resynth f0"):
        F0Cache(data, "train", manifest)
    np.save(path, np.zeros(7, dtype=np.float32))
    with pytest.raises(ValueError, match=r"holds \(7,\) float32, expected \(\d+,\) float32"):
        F0Cache(data, "train", manifest)
    path.write_bytes(whole)
    for wrong in (np.nan, -1.0, np.inf):  # as other tools mark what is unvoiced
        f0 = np.load(path)
        f0[-3] = wrong
        np.save(path, f0)
        with pytest.raises(ValueError, match=rf"row 2 has an F0 of {wrong}, expected Hz, and 0"):
            list(F0Cache(data, "train", manifest))
    path.write_bytes(whole)
    write_manifest(
        data / "train.tsv", SPEECH, [("english/pbx-invalid.flac", int(manifest.num_samples[0]))]
    )
    with pytest.raises(ValueError, match="made from another train.tsv. Run `resynth f0"):
        F0Cache(data, "train", read_manifest(data / "train.tsv"))


def test_other_options_make_the_cache_again(tmp_path):
    data = write_speech_data(tmp_path)
    assert build_f0(data, "train", F0Options("dio")).reused == 0
    assert build_f0(data, "train", F0Options("dio")).reused == 2
    before = (data / "f0/train.npy").read_bytes()
    assert build_f0(data, "train", F0Options("dio", f0_max=200)).reused == 0
    assert (data / "f0/train.npy").read_bytes() != before
    assert json.loads((data / "f0/train.json").read_text())["f0_max"] == 200


def test_an_interrupted_part_continues_with_the_same_bytes(tmp_path, monkeypatch):
    data = write_speech_data(tmp_path)
    manifest, options = read_manifest(data / "train.tsv"), F0Options("dio")
    build_f0(data, "train", options)
    whole = (data / "f0/train.npy").read_bytes()
    description = (data / "f0/train.json").read_bytes()
    (data / "f0/train.npy").unlink()
    (data / "f0/train.json").unlink()
    first = int(num_frames(manifest.num_samples[0]))

    def killed_in_the_second_row(path, *arguments):
        if path == manifest.path(1):
            part = data / "f0/train.npy.1-of-1"
            flat = np.fromfile(part, np.float32)
            flat[first : first + 9] = 123
            part.write_bytes(flat.tobytes())
            raise KeyboardInterrupt
        return read_audio(path, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fairseq_resynth.preparation.f0.read_audio", killed_in_the_second_row)
        build_f0(data, "train", options)
    outcome = build_f0(data, "train", options)
    assert (outcome.rows, outcome.reused, outcome.joined) == (2, 1, True)
    assert (data / "f0/train.npy").read_bytes() == whole
    assert (data / "f0/train.json").read_bytes() == description
    assert sorted(path.name for path in (data / "f0").iterdir()) == ["train.json", "train.npy"]


def test_statistics_want_every_speaker_in_train(tmp_path):
    data = write_speech_data(tmp_path)
    build_f0(data, "train", F0Options("dio"), Shard())
    assert set(write_speaker_statistics(data, ["train", "valid"]).speakers) == {
        "english",
        "italian",
    }
    (data / "valid.speaker").write_text("english\nclara\n")
    with pytest.raises(ValueError, match="names clara, not in train.speaker"):
        write_speaker_statistics(data, ["valid"])
