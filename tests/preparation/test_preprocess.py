"""Any audio to 16 kHz mono: rates, trimming, padding, folders, reuse, and files that fail by name."""

import os

import librosa
import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.preparation.preprocess import (
    PreprocessOptions,
    find_sources,
    prepare,
    preprocess,
)


def tone(seconds, rate=16000):
    return (0.5 * np.sin(2 * np.pi * 330 * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "a/deep").mkdir(parents=True)
    (folder / "b").mkdir()
    soundfile.write(folder / "a/one_mic1.wav", tone(0.5, 44100), 44100)
    soundfile.write(folder / "a/deep/one_mic2.flac", np.stack([tone(0.5, 48000)] * 2, 1), 48000)
    soundfile.write(folder / "b/one_mic1.ogg", tone(0.5, 8000), 8000)
    (folder / "notes.txt").write_text("not audio")
    (folder / "a/._one_mic1.wav").write_text("left by another system")
    return folder


def test_any_rate_becomes_16_khz_mono_in_the_same_folders(source, tmp_path):
    summary = preprocess(source, tmp_path / "out", PreprocessOptions())
    assert (summary.written, summary.reused, summary.failed) == (3, 0, {})
    assert summary.seconds == pytest.approx(1.5)
    for name in ("a/one_mic1.flac", "a/deep/one_mic2.flac", "b/one_mic1.flac"):
        wav = read_audio(tmp_path / "out" / name)
        assert wav.shape == (8000,)
        assert np.abs(wav - tone(0.5))[200:-200].max() < 0.03  # Vorbis


def test_postfix_chooses_and_says_what_there_was(source, tmp_path):
    assert find_sources(source, tmp_path, "mic2.flac") == ["a/deep/one_mic2.flac"]
    with pytest.raises(
        ValueError, match=r"no file under .* ends with 'mic3.flac'; found: .*1 .txt"
    ):
        find_sources(source, tmp_path, "mic3.flac")
    with pytest.raises(NotADirectoryError, match="--srcdir .* is not a folder"):
        find_sources(source / "none", tmp_path)
    with pytest.raises(ValueError, match="--outdir is --srcdir"):
        find_sources(source, source)
    assert len(find_sources(source, source / "b")) == 2


def test_two_sources_of_one_target_are_refused(source, tmp_path):
    soundfile.write(source / "a/one_mic1.flac", tone(0.5), 16000)
    with pytest.raises(
        ValueError, match=r"a/one_mic1.flac and a/one_mic1.wav would both become a/one_mic1"
    ):
        preprocess(source, tmp_path / "out", PreprocessOptions())


def test_padding_to_whole_f0_codes():
    options = PreprocessOptions(pad=True)
    assert [len(prepare(tone(n / 16000), 16000, options)) for n in (1280, 1281, 8000)] == [
        1280,
        2560,
        8960,
    ]


def test_only_trailing_silence_is_trimmed():
    silence = np.zeros(8000, dtype=np.float32)
    wav = np.concatenate([silence, tone(0.5), silence])
    trimmed = prepare(wav, 16000, PreprocessOptions(trim=True))
    # librosa's frames of 2048 every 512 samples, centered: one after the last loud one is where it ends.
    assert 16000 < len(trimmed) <= 16000 + 1024 + 512 and len(trimmed) % 512 == 0
    np.testing.assert_array_equal(trimmed, wav[: len(trimmed)])
    assert len(trimmed) == librosa.effects.trim(wav, top_db=20)[1][1]
    assert len(prepare(wav, 16000, PreprocessOptions(trim=True, pad=True))) % 1280 == 0


def test_running_again_reuses_and_redoes_what_changed(source, tmp_path):
    out = tmp_path / "out"
    preprocess(source, out, PreprocessOptions())
    assert preprocess(source, out, PreprocessOptions()).reused == 3
    newer = (out / "a/one_mic1.flac").stat().st_mtime + 10
    os.utime(source / "a/one_mic1.wav", (newer, newer))  # a copy of the same content
    assert preprocess(source, out, PreprocessOptions()).reused == 3
    older = (source / "a/one_mic1.wav").stat().st_mtime - 1000
    soundfile.write(source / "a/one_mic1.wav", 0.5 * tone(0.5, 44100), 44100)
    os.utime(source / "a/one_mic1.wav", (older, older))  # another content, older than the output
    summary = preprocess(source, out, PreprocessOptions())
    assert (summary.written, summary.reused) == (1, 2)
    summary = preprocess(source, out, PreprocessOptions(pad=True))
    assert (summary.written, summary.reused) == (3, 0)
    assert len(read_audio(out / "a/one_mic1.flac")) == 8960


def test_shards_and_workers_give_the_files_of_one_run(source, tmp_path):
    preprocess(source, tmp_path / "one", PreprocessOptions())
    written = [
        preprocess(source, tmp_path / "four", PreprocessOptions(), shard=Shard(i, 4)).written
        for i in (1, 2, 3, 4)
    ]
    assert written == [1, 1, 1, 0]
    assert preprocess(source, tmp_path / "two", PreprocessOptions(), workers=2).written == 3
    for folder in ("four", "two"):
        for path in (tmp_path / "one").rglob("*.flac"):
            other = tmp_path / folder / path.relative_to(tmp_path / "one")
            assert other.read_bytes() == path.read_bytes()


def test_what_fails_is_named_and_the_rest_is_written(source, tmp_path):
    (source / "empty.wav").touch()
    (source / "junk.wav").write_bytes(b"nothing that a decoder knows" * 40)
    soundfile.write(source / "three.wav", tone(0.5)[:3], 16000)
    soundfile.write(source / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(source / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(source / "loud.wav", 3 * tone(0.5), 16000, subtype="FLOAT")
    summary = preprocess(source, tmp_path / "out", PreprocessOptions(trim=True))
    assert summary.written == 4 and summary.clipped == ["loud.wav"]
    assert list(summary.failed) == ["empty.wav", "junk.wav", "nan.wav", "silent.wav", "three.wav"]
    assert "is empty (0 bytes)" in summary.failed["empty.wav"]
    assert "not readable as audio" in summary.failed["junk.wav"]
    assert "sample 0 is nan" in summary.failed["nan.wav"]
    assert "16000 samples at 16 kHz (0 after --trim), expected 320" in summary.failed["silent.wav"]
    assert "too short: 3 samples" in summary.failed["three.wav"]
    assert not (tmp_path / "out/three.flac").exists()


def two_channels(path, first, second, rate=16000):
    soundfile.write(path, np.stack([first, second], 1), rate)


def test_channels_are_chosen_and_named(tmp_path):
    source, rng = tmp_path / "source", np.random.default_rng(0)
    source.mkdir()
    one, two = tone(0.5), rng.normal(0, 0.1, 8000).astype(np.float32)
    two_channels(source / "speakers.wav", one, two)
    two_channels(source / "lapel.wav", 0 * one, one)
    two_channels(source / "opposite.wav", one, -one)
    soundfile.write(source / "mono.wav", one, 16000)
    run = lambda channel: preprocess(source, tmp_path / channel, PreprocessOptions(channel=channel))  # noqa: E731
    for _ in range(2):  # what a user should know is said again of files that are reused
        summary = run("mean")
        assert list(summary.failed) == ["opposite.wav"]
        assert summary.silent_channels == ["lapel.wav"]
        assert summary.uncorrelated == ["speakers.wav"]
    assert summary.reused == 3 and not (tmp_path / "mean/opposite.flac").exists()
    assert np.abs(read_audio(tmp_path / "mean/lapel.flac") - one).max() < 1e-3
    assert run("left").written == 4 and not run("left").uncorrelated
    assert list(run("2").failed) == ["mono.wav"]
    np.testing.assert_allclose(read_audio(tmp_path / "2/speakers.flac"), two, atol=1e-4)
    assert run("each").written == 6 and run("each").reused == 6
    made = sorted(path.stem for path in (tmp_path / "each").glob("*_[12]/*_[12].flac"))
    assert made == ["lapel_2", "opposite_1", "opposite_2", "speakers_1", "speakers_2"]
    np.testing.assert_allclose(
        read_audio(tmp_path / "each/speakers_2/speakers_2.flac"), two, atol=1e-4
    )
    with pytest.raises(ValueError, match="--channel is 0, expected left, right, mean, each or a"):
        run("0")
    (source / "mono_1").mkdir()
    soundfile.write(source / "mono_1/mono_1.wav", one, 16000)
    with pytest.raises(ValueError, match="a channel of mono.wav and mono_1/mono_1.wav would both"):
        run("each")


def test_files_that_are_cut_off_are_taken_only_when_asked(source, tmp_path):
    path = source / "a/one_mic1.wav"
    path.write_bytes(path.read_bytes()[:22000])
    summary = preprocess(source, tmp_path / "out", PreprocessOptions())
    assert "declares 0.50 s, found 0.25 s" in summary.failed["a/one_mic1.wav"]
    summary = preprocess(source, tmp_path / "out", PreprocessOptions(accept_truncated=True))
    assert summary.truncated == ["a/one_mic1.wav"] and not summary.failed
    assert len(read_audio(tmp_path / "out/a/one_mic1.flac")) == 3983


def test_copies_of_other_programs_are_left_out(source, tmp_path):
    for folder in (".ipynb_checkpoints", "__MACOSX/a", "a/@eaDir/one.wav"):
        (source / folder).mkdir(parents=True)
        soundfile.write(source / folder / "copy.wav", tone(0.1), 16000)
    assert preprocess(source, tmp_path / "out", PreprocessOptions()).written == 3


def test_silence_offsets_and_other_files_are_named(source, tmp_path, capsys):
    soundfile.write(source / "quiet.wav", 1e-5 * tone(0.2), 16000, subtype="FLOAT")
    soundfile.write(source / "offset.wav", 0.1 * tone(0.2) + 0.5, 16000)
    assert main(["preprocess", "--srcdir", str(source), "--outdir", str(tmp_path / "out")]) == 0
    summary = capsys.readouterr().out
    assert "1 are silent: all samples are 0 at 16 bits, quiet.wav first" in summary
    assert "1 have a constant offset (DC) larger than their sound" in summary
    assert "other files were left out: 1 .txt" in summary
