"""Spectrogram pictures: tones and F0 are drawn at their height."""

import io

import numpy as np
import pytest
from PIL import Image

from fairseq_resynth.measures.pictures import F0_COLOR, spectrogram_png


def decode_png(content: bytes) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def brightness(picture: np.ndarray) -> np.ndarray:
    return picture.astype(int).sum(2)


def test_a_low_tone_is_low_and_a_high_tone_high():
    time = np.arange(16000) / 16000
    rows = []
    for hertz in (200, 6000):
        picture = decode_png(spectrogram_png(np.sin(2 * np.pi * hertz * time)))
        assert picture.shape == (96, 100, 3)
        rows.append(brightness(picture)[:, 50].argmax())
    assert rows[0] > 80 and rows[1] < 20


def test_f0_is_drawn_where_voiced_at_its_height():
    f0 = np.repeat([0.0, 100.0, 0.0, 300.0], 50)
    picture = decode_png(spectrogram_png(np.zeros(16000), f0))
    drawn = (picture == F0_COLOR).all(2)
    assert not drawn[:, :24].any() and not drawn[:, 52:74].any()
    low, high = np.flatnonzero(drawn[:, 40])[0], np.flatnonzero(drawn[:, 90])[0]
    # log axis from 50 Hz at the bottom (row 95) to 600 Hz on top
    assert low == pytest.approx(95 * (1 - np.log(2) / np.log(12)), abs=1)
    assert high == pytest.approx(95 * (1 - np.log(6) / np.log(12)), abs=1)


def test_silence_is_black_and_nothing_is_refused():
    assert decode_png(spectrogram_png(np.zeros(8000))).max() <= 4
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        spectrogram_png(np.zeros(0))


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_a_second_is_a_hundred_columns_at_any_rate(rate):
    wav, f0 = np.random.default_rng(0).standard_normal(rate // 2), np.full(100, 120.0)
    picture = decode_png(spectrogram_png(wav, f0, rate))
    assert picture.shape == (96, 50, 3) and picture.dtype == np.uint8
    assert (picture == F0_COLOR).all(2).any(0).all()


def test_a_few_samples_are_drawn():
    assert decode_png(spectrogram_png(np.ones(3))).shape == (96, 1, 3)
