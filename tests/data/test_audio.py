"""Prepared files are read strictly, any others by whichever decoder knows them."""

import time
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from fairseq_resynth.data.audio.decoding import decode, load_any_audio
from fairseq_resynth.data.audio.files import (
    audio_length,
    pad_to_multiple,
    read_audio,
    resample,
    write_audio,
)
from fairseq_resynth.data.audio.pcm import to_pcm, wav_header


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


def test_channels_that_speak_are_averaged_and_the_rate_is_kept(tmp_path):
    wav = tone(rate=44100)
    for silent in (1, 5):  # a lapel microphone, a film of six channels
        soundfile.write(tmp_path / "a.wav", np.stack([wav] + [1e-4 * wav] * silent, 1), 44100)
        found, rate = load_any_audio(tmp_path / "a.wav")
        assert rate == 44100 and found.shape == (22050,)
        assert np.abs(found - wav).max() < 1e-4
    soundfile.write(tmp_path / "a.wav", np.stack([wav, 0.5 * wav], 1), 44100)
    assert np.abs(load_any_audio(tmp_path / "a.wav")[0] - 0.75 * wav).max() < 1e-4


def test_many_channels_of_a_container_are_read(tmp_path):
    """PyAV 18 crashes when it reads planar samples of eight channels."""
    import av

    wav = np.stack([tone() * (0.1 * number) for number in range(1, 9)], 1)
    frame = av.AudioFrame.from_ndarray(wav.reshape(1, -1), format="flt", layout="7.1")
    frame.sample_rate = 16000
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="7.1")
        container.mux(stream.encode(frame) + stream.encode(None))
    np.testing.assert_array_equal(decode(tmp_path / "a.mkv").wav, wav)


def test_channels_that_cancel_are_refused(tmp_path):
    for other in (-1, -0.85):
        soundfile.write(tmp_path / "a.wav", np.stack([tone(), other * tone()], 1), 16000)
        with pytest.raises(ValueError, match="a.wav: the 2 channels cancel.*--channel left"):
            load_any_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -0.5 * tone()], 1), 16000)
    assert np.abs(load_any_audio(tmp_path / "a.wav")[0] - 0.25 * tone()).max() < 1e-4


@pytest.mark.parametrize(
    "format, subtype",
    [("WAV", "PCM_16"), ("WAV", "ULAW"), ("WAV", "MS_ADPCM"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"),
     ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("NIST", "PCM_16"), ("FLAC", "PCM_16")],
)  # fmt: skip
def test_files_that_are_cut_off_are_refused_with_both_lengths(tmp_path, format, subtype):
    path = tmp_path / "a.audio"
    wav = tone(2.0) + np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(path, wav, 16000, subtype, format=format)
    assert len(load_any_audio(path)[0]) == len(read_audio(path)) >= 32000
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(
        ValueError, match=r"a.audio is damaged or cut off: it declares 2\.\d+ s, found"
    ):
        load_any_audio(path)
    with pytest.raises(ValueError, match="a.audio is .*(cut off|damaged)"):
        read_audio(path)
    found = decode(path, accept_truncated=True)
    assert len(found.wav) / 16000 + found.missing == pytest.approx(2, abs=0.05)
    assert len(found.wav) / 16000 == pytest.approx(1.2, abs=0.25)


def test_a_wav_that_was_written_to_a_pipe_is_whole(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_header(16000) + to_pcm(tone()))
    assert len(load_any_audio(tmp_path / "a.wav")[0]) == len(read_audio(tmp_path / "a.wav")) == 8000


def test_damaged_blocks_of_a_flac_are_refused_by_every_reader(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "a.flac", noise, 16000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (tmp_path / "a.flac").write_bytes(data)
    for read in (load_any_audio, read_audio):
        with pytest.raises(ValueError, match="a.flac is .*damaged"):
            read(tmp_path / "a.flac")
    found = decode(tmp_path / "a.flac", accept_truncated=True).wav[:, 0]
    assert 8000 < len(found) < 17000 and np.abs(found - noise[: len(found)]).max() < 2**-14


def test_compressed_sphere_names_the_codec_and_the_tool(tmp_path):
    header = (
        "NIST_1A\n   1024\nsample_count -i 13211\nsample_rate -i 16000\nchannel_count -i 1\n"
        "sample_n_bytes -i 2\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    )
    (tmp_path / "a.sph").write_bytes(header.encode().ljust(1024) + b"ajkg" + bytes(range(256)) * 9)
    with pytest.raises(ValueError, match=r"a.sph is NIST SPHERE with Shorten .*sph2pipe -f wav"):
        load_any_audio(tmp_path / "a.sph")


def test_any_error_of_a_decoder_names_the_file(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)

    def broken(*_, **__):
        raise AttributeError("'NoneType' has no attribute 'name'")

    monkeypatch.setattr(soundfile, "SoundFile", broken)
    with pytest.raises(ValueError, match="a.wav is not readable as audio: 'NoneType' has no"):
        load_any_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_all_links_of_a_chained_ogg_are_read(tmp_path, subtype):
    chained, wav = tmp_path / "chained.ogg", tone(0.3)
    soundfile.write(tmp_path / "one.ogg", wav, 16000, format="OGG", subtype=subtype)
    link = (tmp_path / "one.ogg").read_bytes()
    chained.write_bytes(2 * link)
    once, twice = load_any_audio(tmp_path / "one.ogg")[0], load_any_audio(chained)[0]
    np.testing.assert_array_equal(twice, np.concatenate([once, once]))
    soundfile.write(tmp_path / "other.ogg", tone(0.3, 8000), 8000, format="OGG", subtype="VORBIS")
    chained.write_bytes(link + (tmp_path / "other.ogg").read_bytes())
    with pytest.raises(ValueError, match="chain of Ogg streams of several kinds: .*8000 Hz"):
        load_any_audio(chained)


def test_a_wav_whose_length_was_never_written_is_whole(tmp_path):
    path = tmp_path / "stream.wav"
    soundfile.write(path, tone(0.2), 16000)
    whole, block = load_any_audio(path)[0], path.read_bytes()
    path.write_bytes(block[:4] + bytes(4) + block[8:40] + bytes(4) + block[44:])
    np.testing.assert_array_equal(load_any_audio(path)[0], whole)


def test_what_is_no_recording_is_refused_with_its_reason(tmp_path):
    path = tmp_path / "a.wav"

    def reason():
        with pytest.raises(ValueError, match="a.wav") as refused:
            load_any_audio(path)
        return str(refused.value)

    soundfile.write(path, 20000 * tone(0.1), 16000, subtype="FLOAT")
    assert "samples reach 10000" in reason() and "divide them by 32768" in reason()
    soundfile.write(path, tone(0.1), 16)
    assert "the header says 16 Hz" in reason()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    assert "pointer of Git LFS" in reason()
    path.write_text("<html>Not Found</html>")
    assert "text, not audio" in reason()
    path.write_bytes(bytes(1000))
    assert "Errno" not in reason()
    path.unlink()
    path.mkdir()
    assert "is a folder, expected a recording" in reason()


@pytest.mark.parametrize("rate", [22254, 44056, 11127, 37800, 8000, 22050, 44100, 48000])
def test_resampling_keeps_the_tone_at_any_rate(rate):
    started = time.process_time()
    wav = resample(tone(1.6, rate), rate)
    assert time.process_time() - started < 1
    assert len(wav) == -(-int(1.6 * rate) * 16000 // rate)
    assert np.abs(wav - tone(2.0)[: len(wav)])[400:-400].max() < 1e-4


def encode_with_av(path, format, codec, rate, wav, **options):
    import av

    with av.open(str(path), "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((wav * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
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


@pytest.mark.parametrize(
    "format, codec, rate",
    [("webm", "libopus", 48000), ("ogg", "libopus", 48000), ("mp4", "aac", 44100),
     ("mp3", "libmp3lame", 44100)],
)  # fmt: skip
def test_the_delay_of_a_codec_is_trimmed_where_the_container_tells(tmp_path, format, codec, rate):
    time = np.arange(rate) / rate
    chirp = (0.5 * np.sin(2 * np.pi * (200 + 1500 * time) * time)).astype(np.float32)
    encode_with_av(tmp_path / "a.audio", format, codec, rate, chirp)
    found = load_any_audio(tmp_path / "a.audio")[0]
    products = np.fft.rfft(found, 2 * rate) * np.fft.rfft(chirp, 2 * rate).conj()
    assert abs(int(np.argmax(np.fft.irfft(products)))) <= 1


def test_the_length_of_an_mp3_without_its_header_is_an_estimate(tmp_path):
    encode_with_av(tmp_path / "a.mp3", "mp3", "libmp3lame", 44100, tone(1.0, 44100), write_xing="0")
    assert len(load_any_audio(tmp_path / "a.mp3")[0]) >= 44100
    encode_with_av(tmp_path / "b.mp3", "mp3", "libmp3lame", 44100, tone(2.0, 44100))
    data = (tmp_path / "b.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="b.mp3 is damaged or cut off: it declares 2.00 s"):
        load_any_audio(tmp_path / "b.mp3")


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
