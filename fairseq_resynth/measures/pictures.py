"""Spectrograms as PNG without a plotting library."""

import functools
import struct
import zlib

import librosa
import numpy as np

# matplotlib's magma at five places (CC0); 32 shades keep a picture of 6 s under 25 kB
_MAGMA = np.array(
    [(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], dtype=float
)
SHADES = 32
F0_COLOUR = (0, 229, 255)
F0_RANGE = (50.0, 600.0)  # Hz at the bottom and at the top edge, logarithmic
DYNAMIC_RANGE = 70.0  # dB under the loudest cell are drawn black
HOP_SECONDS = 0.01
HEIGHT = 96


@functools.cache
def _palette() -> np.ndarray:
    """(SHADES + 1, 3) uint8: the shades, then the colour of F0."""
    places = np.linspace(0, len(_MAGMA) - 1, SHADES)
    shades = [np.interp(places, np.arange(len(_MAGMA)), channel) for channel in _MAGMA.T]
    return np.vstack([np.stack(shades, 1).round(), F0_COLOUR]).astype(np.uint8)


def indexed_png(pixels: np.ndarray, palette: np.ndarray) -> bytes:
    """Encodes palette indices as PNG (ISO/IEC 15948, colour type 3).

    Args:
        pixels: (H, W) uint8 indices, row 0 on top.
        palette: (up to 256, 3) uint8.
    """
    height, width = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    rows = np.hstack([np.zeros((height, 1), np.uint8), pixels.astype(np.uint8)])  # filter 0: none
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"PLTE", palette.tobytes())]
    parts += [chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)), chunk(b"IEND", b"")]
    return b"".join(parts)


def spectrogram_png(
    wav: np.ndarray, f0: np.ndarray | None = None, sample_rate: int = 16000
) -> bytes:
    """Draws a mel spectrogram, 100 columns a second and 70 dB deep, with F0 over it.

    Args:
        wav: (T,) samples in [-1, 1], T > 0.
        f0: (N,) Hz over the same time, 0 = unvoiced; drawn on a logarithmic axis of its own, 50 Hz
            at the bottom edge and 600 Hz at the top. None: no line.
        sample_rate: Hz.

    Returns:
        A PNG file, 96 pixels high.

    Raises:
        ValueError: no samples.
    """
    wav = np.asarray(wav, dtype=np.float32)
    if wav.ndim != 1 or not len(wav):
        raise ValueError(f"cannot draw a waveform of shape {wav.shape}, expected (T,) with T > 0")
    hop = int(HOP_SECONDS * sample_rate)
    power = librosa.feature.melspectrogram(
        y=wav,
        sr=sample_rate,
        n_fft=1024,
        hop_length=hop,
        win_length=512,
        n_mels=HEIGHT,
        pad_mode="constant",
    )
    decibel = 10 * np.log10(np.maximum(power, 1e-10))
    level = 1 + (decibel - max(decibel.max(), -30.0)) / DYNAMIC_RANGE  # silence stays black
    pixels = (np.clip(level, 0, 1) * (SHADES - 1)).round().astype(np.uint8)[::-1].copy()
    if f0 is not None and len(f0):
        _draw_f0(pixels, np.asarray(f0, dtype=float))
    return indexed_png(pixels, _palette())


def _draw_f0(pixels: np.ndarray, f0: np.ndarray) -> None:
    height, width = pixels.shape
    columns = np.arange(max(width, len(f0))) / max(width, len(f0))
    hertz = f0[(columns * len(f0)).astype(int)]
    place = np.log(np.maximum(hertz, 1e-9) / F0_RANGE[0]) / np.log(F0_RANGE[1] / F0_RANGE[0])
    rows = np.clip((1 - place) * (height - 1), 0, height - 2).round().astype(int)
    voiced = hertz > 0
    across = (columns * width).astype(int)[voiced]
    pixels[rows[voiced], across] = SHADES
    pixels[rows[voiced] + 1, across] = SHADES  # two pixels thick: readable on a phone
