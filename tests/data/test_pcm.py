"""Audio on pipes: headers, sample formats, and resampling piece by piece."""

import io
import struct

import numpy as np
import pytest
import soundfile

from fairseq_resynth.data.audio.pcm import (
    PcmReader,
    StreamResampler,
    sinc_resample,
    to_pcm,
    wav_header,
)

WAV = (0.1 * np.random.default_rng(0).standard_normal(7001)).astype(np.float32)


def wav_file(wav, rate=16000, subtype="PCM_16"):
    stream = io.BytesIO()
    soundfile.write(stream, wav, rate, subtype, format="WAV")
    return stream.getvalue()


def read(data, **options):
    pieces = list(PcmReader(io.BytesIO(data), **options))
    return np.concatenate([wav for wav, _ in pieces]), [rate for _, rate in pieces]


@pytest.mark.parametrize("rates", [(44100, 16000), (48000, 16000), (8000, 16000), (16000, 11025)])
def test_a_stream_is_resampled_as_the_whole_is(rates):
    before, after = rates
    resampler, rng, pieces, start = StreamResampler(after), np.random.default_rng(1), [], 0
    while start < len(WAV):
        size = int(rng.integers(1, 900))
        pieces.append(resampler.push(WAV[start : start + size], before))
        assert len(resampler._held) < 3000
        start += size
    pieces.append(resampler.flush())
    np.testing.assert_allclose(np.concatenate(pieces), sinc_resample(WAV, before, after), atol=1e-6)


def test_a_change_of_rate_ends_one_part_and_begins_the_next():
    resampler = StreamResampler()
    found = np.concatenate(
        [resampler.push(WAV, 44100), resampler.push(WAV, 8000), resampler.flush()]
    )
    parts = [sinc_resample(WAV, 44100), sinc_resample(WAV, 8000)]
    np.testing.assert_allclose(found, np.concatenate(parts), atol=1e-6)


@pytest.mark.parametrize("rate", [0, 3999, 44101, 500000])
def test_rates_that_cannot_be_resampled_are_refused(rate):
    with pytest.raises(ValueError, match=f"{rate} Hz, expected a multiple of 25 Hz"):
        StreamResampler().push(WAV, rate)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_formats_and_channels(subtype):
    stereo = np.stack([WAV, -0.5 * WAV], axis=1)
    data = wav_file(stereo, 22050, subtype)
    found, rates = read(data)
    expected = soundfile.read(io.BytesIO(data), dtype="float32")[0].mean(1)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert set(rates) == {22050}


def test_raw_samples_and_a_header_of_unknown_length():
    found, rates = read(to_pcm(WAV), raw_rate=8000)
    np.testing.assert_allclose(found, WAV, atol=1e-4)
    assert set(rates) == {8000}
    again, rates = read(wav_header(44100) + to_pcm(WAV))
    np.testing.assert_array_equal(again, found)
    assert set(rates) == {44100}
    assert not list(PcmReader(io.BytesIO(b"")))


def test_wavs_one_after_the_other():
    tagged = wav_file(WAV[:101], 8000, "PCM_U8")
    tags = b"LIST" + struct.pack("<I", 4) + b"INFO"
    found, rates = read(tagged[:-1] + tagged[-1:] + tags + wav_file(WAV, 44100))
    assert len(found) == 101 + len(WAV) and set(rates) == {8000, 44100}
    np.testing.assert_allclose(found[101:], WAV, atol=1e-4)


def test_what_came_before_an_early_end_is_not_lost():
    taken = []
    with pytest.raises(ValueError, match=r"ends 0\.06 s before the length"):
        taken.extend(PcmReader(io.BytesIO(wav_file(WAV)[:-2000])))
    assert sum(len(wav) for wav, _ in taken) == len(WAV) - 1000
    with pytest.raises(ValueError, match="within a sample: expected 2 bytes"):
        read(to_pcm(WAV) + b"x")
    with pytest.raises(ValueError, match="damaged WAV"):
        read(wav_file(WAV)[:30])
    with pytest.raises(ValueError, match="format 17.*ffmpeg"):
        read(wav_file(WAV, subtype="IMA_ADPCM"))
