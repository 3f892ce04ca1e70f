"""Spectrograms with F0 over them, as small PNG files for TensorBoard and for pages."""

import functools
import io

import numpy as np
import torch
from PIL import Image

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.modules.losses import LogMelSpectrogram

# matplotlib's magma at five places (CC0); 32 shades keep a picture of 6 s under 25 kB
_MAGMA = np.array(
    [(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], dtype=float
)
SHADES = 32
F0_COLOR = (0, 229, 255)
F0_RANGE = (50.0, 600.0)  # Hz at the bottom and at the top edge, on a logarithmic axis
DYNAMIC_RANGE = 70.0  # dB; cells that are further below the loudest one are black
COLUMNS_PER_SECOND = 100
HEIGHT = 96  # pixels, one per mel band


@functools.cache
def _palette() -> np.ndarray:
    """The shades and then the color of F0: (SHADES + 1, 3) uint8."""
    places = np.linspace(0, len(_MAGMA) - 1, SHADES)
    shades = [np.interp(places, np.arange(len(_MAGMA)), channel) for channel in _MAGMA.T]
    return np.vstack([np.stack(shades, 1).round(), F0_COLOR]).astype(np.uint8)


@functools.cache
def _log_mel(sample_rate: int) -> LogMelSpectrogram:
    n_fft = max(512, 1 << round(np.log2(0.032 * sample_rate)))  # 32 ms at 16 kHz
    return LogMelSpectrogram(sample_rate, HEIGHT, n_fft, sample_rate // COLUMNS_PER_SECOND)


def spectrogram_png(
    wav: np.ndarray, f0: np.ndarray | None = None, sample_rate: int = SAMPLE_RATE
) -> bytes:
    """A mel spectrogram of 70 dB with F0 over it as a PNG file, 96 pixels high, 100 columns per second.
    `wav` is (T,) samples in [-1, 1]. `f0` is (N,) Hz over the same time, 0 = unvoiced, on a logarithmic
    axis from 50 Hz at the bottom edge to 600 Hz at the top. Raises ValueError for an empty waveform."""
    wav = np.asarray(wav, dtype=np.float32)
    if wav.ndim != 1 or not len(wav):
        raise ValueError(f"cannot draw a waveform of shape {wav.shape}, expected (T,) with T > 0")
    with torch.inference_mode():
        nepers = _log_mel(sample_rate)(torch.from_numpy(wav)[None, None])[0].numpy()
    decibel = nepers * (20 / np.log(10))
    level = 1 + (decibel - max(decibel.max(), -30.0)) / DYNAMIC_RANGE  # silence stays black
    pixels = (np.clip(level, 0, 1) * (SHADES - 1)).round().astype(np.uint8)[::-1].copy()
    if f0 is not None and len(f0):
        _draw_f0(pixels, np.asarray(f0, dtype=float))
    image, stream = Image.fromarray(pixels), io.BytesIO()
    image.putpalette(_palette().tobytes())
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _draw_f0(pixels: np.ndarray, f0: np.ndarray) -> None:
    """Draws (N,) Hz into palette indices (96, W), row 0 at the top."""
    height, width = pixels.shape
    columns = np.arange(max(width, len(f0))) / max(width, len(f0))
    hertz = f0[(columns * len(f0)).astype(int)]
    place = np.log(np.maximum(hertz, 1e-9) / F0_RANGE[0]) / np.log(F0_RANGE[1] / F0_RANGE[0])
    rows = np.clip((1 - place) * (height - 1), 0, height - 2).round().astype(int)
    voiced = hertz > 0
    across = (columns * width).astype(int)[voiced]
    pixels[rows[voiced], across] = SHADES
    pixels[rows[voiced] + 1, across] = SHADES  # two pixels thick, to be readable on a phone
