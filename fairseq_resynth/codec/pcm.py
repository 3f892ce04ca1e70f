"""Raw 16-bit audio on pipes, with or without a WAV header."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from fairseq_resynth.codec.payload import SAMPLES_MORE
from fairseq_resynth.data.audio import SAMPLE_RATE

PIECE_BYTES = 3200  # a tenth of a second


def read_pcm(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yields (n,) float32 pieces of 16-bit little-endian mono audio at 16 kHz as it arrives.

    Args:
        stream: raw samples, or a WAV file, whose header is read and checked.

    Raises:
        ValueError: a WAV header of another format, or half a sample at the end.
    """
    head = stream.read(4)
    rest = b"" if head != b"RIFF" else None
    if rest is None:
        _skip_wav_header(stream)
        head = b""
    held = head
    read = getattr(stream, "read1", stream.read)
    while data := read(PIECE_BYTES):
        held += data
        whole = len(held) // 2 * 2
        yield np.frombuffer(held[:whole], dtype="<i2").astype(np.float32) / 32768
        held = held[whole:]
    if len(held) > 1:
        yield np.frombuffer(held[: len(held) // 2 * 2], dtype="<i2").astype(np.float32) / 32768
    if len(held) % 2:
        raise ValueError("the input ends within a sample: expected 16-bit mono audio at 16 kHz")


def _skip_wav_header(stream: BinaryIO) -> None:
    stream.read(8)
    found = False
    while len(chunk := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            if not found:
                break
            return
        if size > 1 << 20:
            break
        body = stream.read(size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            found = True
            if (channels, rate, bits) != (1, SAMPLE_RATE, 16) or kind not in (1, 0xFFFE):
                raise ValueError(
                    f"the input is a WAV of {channels} channel(s), {rate} Hz, {bits} bits; a stream must be "
                    f"1 channel, {SAMPLE_RATE} Hz, 16 bits: `ffmpeg -i IN -f s16le -ar 16000 -ac 1 -`"
                )
    raise ValueError("the input is a damaged WAV: no samples follow its header")


def to_pcm(wav: np.ndarray) -> bytes:
    """Returns 16-bit little-endian samples of (n,) float, clipped to [-1, 1)."""
    return np.clip(np.round(wav * 32768), -32768, 32767).astype("<i2").tobytes()


def fit_length(wav: np.ndarray, num_samples: int, rate: float) -> np.ndarray:
    """Cuts or pads with silence to the original's length over `rate`, by at most 1024 samples.

    A content encoder leaves up to a frame of the end without a unit.
    """
    wanted = round(num_samples / rate)
    if abs(wanted - len(wav)) * min(rate, 1.0) > SAMPLES_MORE:
        return wav
    return np.pad(wav[:wanted], (0, max(wanted - len(wav), 0)))
