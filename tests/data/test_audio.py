"""Prepared files are read strictly, any others by whichever decoder knows them."""

import numpy as np
import pytest
import soundfile

from fairseq_resynth.data.audio.files import (
    audio_length,
    load_any_audio,
    pad_to_multiple,
    read_audio,
    resample,
    write_audio,
)


def tone(seconds=0.5, rate=16000, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_writing_and_reading_a_range(tmp_path, suffix):
    wav = tone()
    write_audio(tmp_path / f"a{suffix}", wav)
    whole = read_audio(tmp_path / f"a{suffix}")
    assert whole.dtype == np.float32 and np.abs(whole - wav).max() <= 2**-15
    part = read_audio(tmp_path / f"a{suffix}", start=1000, num_samples=320)
    np.testing.assert_array_equal(part, whole[1000:1320])
    assert len(read_audio(tmp_path / f"a{suffix}", start=7900, num_samples=320)) == 100
    assert audio_length(tmp_path / f"a{suffix}") == 8000


def test_float_files_keep_their_samples(tmp_path):
    write_audio(tmp_path / "a.wav", tone() * 1.7, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), tone() * np.float32(1.7))
    with pytest.raises(ValueError, match=r"cannot write FLOAT as '.flac'"):
        write_audio(tmp_path / "a.flac", tone(), subtype="FLOAT")


def bad_file(tmp_path, kind):
    path = tmp_path / f"{kind}.wav"
    wav = tone()
    if kind == "nan":
        wav[5] = np.nan
        soundfile.write(path, wav, 16000, subtype="FLOAT")
    elif kind == "stereo":
        soundfile.write(path, np.stack([wav, wav], 1), 16000)
    elif kind == "rate":
        soundfile.write(path, wav, 22050)
    elif kind == "header":
        soundfile.write(path, wav[:0], 16000)
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"no audio at all")
    return path


@pytest.mark.parametrize("read", [read_audio, audio_length])
@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", r"missing.wav does not exist"),
        ("empty", r"empty.wav is empty \(0 bytes\)"),
        ("junk", r"junk.wav is not readable as audio"),
        ("header", r"header.wav: the file has no samples"),
        ("rate", r"rate.wav: found 22050 Hz, expected 16000; run `resynth preprocess`"),
        ("stereo", r"stereo.wav: found 2 channels, expected 1; run `resynth preprocess`"),
    ],
)
def test_what_is_no_prepared_file_is_refused_by_name(tmp_path, read, kind, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(bad_file(tmp_path, kind))


@pytest.mark.parametrize("read", [read_audio, load_any_audio])
def test_nan_is_refused_with_its_place(tmp_path, read):
    with pytest.raises(ValueError, match=r"nan.wav: sample 5 is nan"):
        read(bad_file(tmp_path, "nan"))


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="sample 0 is nan"):
        write_audio(tmp_path / "a.wav", np.array([np.nan]))
    assert not list(tmp_path.iterdir())


def test_channels_are_averaged_and_the_rate_is_kept(tmp_path):
    soundfile.write(
        tmp_path / "a.wav", np.stack([tone(rate=44100), 0 * tone(rate=44100)], 1), 44100
    )
    wav, rate = load_any_audio(tmp_path / "a.wav")
    assert rate == 44100 and wav.shape == (22050,)
    assert np.abs(wav - tone(rate=44100) / 2).max() < 1e-4


def encode_with_av(path, format, codec, rate, wav):
    import av

    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((wav * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = rate
        for each in (frame, None):
            container.mux(stream.encode(each))


@pytest.mark.parametrize(
    "name, format, codec, rate", [("a.g722", "g722", "g722", 16000), ("a.m4a", "mp4", "aac", 44100)]
)
def test_formats_of_ffmpeg_are_decoded(tmp_path, name, format, codec, rate):
    wav = tone(1.0, rate)
    encode_with_av(tmp_path / name, format, codec, rate, wav)
    decoded, found = load_any_audio(tmp_path / name)
    assert found == rate and abs(len(decoded) - len(wav)) < 2048
    spectrum = np.abs(np.fft.rfft(decoded[:rate]))
    assert abs(np.argmax(spectrum) * rate / len(decoded[:rate]) - 440) <= 1
    assert decoded.std() == pytest.approx(wav.std(), rel=0.1)


def test_resampling_keeps_the_tone():
    wav = resample(tone(1.0, 44100), 44100)
    assert wav.shape == (16000,) and wav.dtype == np.float32
    assert np.abs(wav - tone(1.0))[200:-200].max() < 2e-3
    same = tone()
    assert resample(same, 16000) is same


@pytest.mark.parametrize("length, padded", [(1, 1280), (1279, 1280), (1280, 1280), (1281, 2560)])
def test_padding_adds_zeros_only_where_needed(length, padded):
    wav = pad_to_multiple(np.ones(length, dtype=np.float32), 1280)
    assert len(wav) == padded and wav[:length].all() and not wav[length:].any()
