"""Audio that arrives on a pipe or a socket: samples, raw or in a WAV, and their resampling."""

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE

RATE_GRID = 25  # Hz; the filters of other rates would have too many coefficients
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
PIECE_BYTES = 3200  # a tenth of a second of 16-bit samples at 16 kHz
_ENDLESS = 0x7FFFF000  # sizes of WAVs of unknown length are this or more, or 0


def check_sample_rate(rate: int) -> int:
    """Returns a sample rate; raises ValueError if it is none that `StreamResampler` takes."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE or rate % RATE_GRID:
        raise ValueError(
            f"the sample rate is {rate} Hz, expected a multiple of {RATE_GRID} Hz from {LOWEST_RATE} to "
            f"{HIGHEST_RATE}"
        )
    return rate


def sinc_resample(wav: np.ndarray, from_rate: int, to_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(ceil(T * to_rate / from_rate),) float32 of (T,), by torchaudio's windowed sinc; rates in Hz. Its short
    filter needs little of what follows a sample; soxr at its highest quality waits for 84 ms."""
    import torch
    from torchaudio.functional import resample

    if from_rate == to_rate:
        return wav
    with torch.inference_mode():
        return resample(torch.from_numpy(wav), from_rate, to_rate).numpy()


class StreamResampler:
    """Resamples a stream to `to_rate` in Hz, to what `sinc_resample` gives for the whole. It waits for
    at most 20 ms between 44.1 kHz and 16 kHz, and for one between 48 kHz and 16 kHz. Raises ValueError
    for a rate below 4 kHz or above 384 kHz, or not a multiple of 25 Hz."""

    def __init__(self, to_rate: int = SAMPLE_RATE):
        self.to_rate = self._from_rate = check_sample_rate(to_rate)
        self._held, self._before = np.zeros(0, np.float32), 0

    def push(self, samples: np.ndarray, from_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Takes (n,) float32 and returns the (m,) float32 that are finished. Where `from_rate` changes, the
        samples of the old rate end as at the end of a stream."""
        check_sample_rate(from_rate)
        rest = self.flush() if from_rate != self._from_rate else samples[:0]
        self._from_rate = from_rate
        if from_rate == self.to_rate:
            return np.append(rest, samples)
        self._held = np.append(self._held, samples)
        # The samples repeat their positions on both grids after one period.
        period = from_rate // math.gcd(from_rate, self.to_rate)
        # half the width of the filter of torchaudio: 6 zero crossings at 0.99 of the lower rate
        width = math.ceil(6 * from_rate / (0.99 * min(from_rate, self.to_rate))) + 1
        context = -(-width // period) * period
        count = (len(self._held) - self._before - context) // period * period
        if count <= 0:
            return rest
        stop = self._before + count
        wav = self._resampled(self._held[: stop + context])
        wav = wav[: count * self.to_rate // from_rate]
        drop = max(stop - context, 0)
        self._held, self._before = self._held[drop:].copy(), stop - drop
        return np.append(rest, wav)

    def flush(self) -> np.ndarray:
        """The remaining (m,) float32 samples."""
        wav = self._resampled(self._held)
        self._held, self._before = self._held[:0], 0
        return wav

    def _resampled(self, wav: np.ndarray) -> np.ndarray:
        if not len(wav):
            return wav
        first = self._before * self.to_rate // self._from_rate
        return sinc_resample(wav, self._from_rate, self.to_rate)[first:]


class PcmReader:
    """Audio of a pipe as it arrives: iterates over ((n,) float32, sample rate in Hz).

    The stream is WAV of integers or floats, whose channels are averaged, or several such WAVs one after the
    other; or raw 16-bit little-endian mono at `raw_rate`. Raises ValueError if a header is damaged; and after
    all whole samples, if the stream ends within a sample or before the length that a header tells.

    Attributes:
        is_wav: whether the stream begins with the header of a WAV.
        rate: sample rate of its beginning.
    """

    def __init__(self, stream: BinaryIO, raw_rate: int = SAMPLE_RATE):
        self._stream = stream
        self._head = stream.read(4)
        self.is_wav = self._head == b"RIFF"
        self._form, self._size = ("<i2", 1, check_sample_rate(raw_rate)), math.inf
        if self.is_wav:
            stream.read(4)  # the size of the whole
            self._form, self._size, self._head = *_read_wav_header(stream), b""
        self.rate = self._form[2]

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        form, size = self._form, self._size
        yield from _samples(self._stream, self._head, size, *form)
        while self.is_wav and math.isfinite(size):
            head = self._stream.read(8 + int(size % 2))[int(size % 2) :]
            if len(head) < 8:
                return
            if head[:4] == b"RIFF":
                form, size = _read_wav_header(self._stream)
                yield from _samples(self._stream, b"", size, *form)
            else:  # tags after the samples
                size = int.from_bytes(head[4:], "little")
                self._stream.read(min(size, 1 << 24))

    def resampled(self) -> Iterator[np.ndarray]:
        """Yields (n,) float32 pieces at 16 kHz."""
        resampler = StreamResampler()
        for samples, rate in self:
            yield resampler.push(samples, rate)
        yield resampler.flush()


def _samples(
    stream: BinaryIO, held: bytes, size: float, kind: str, channels: int, rate: int
) -> Iterator[tuple[np.ndarray, int]]:
    # What has arrived, instead of waiting for all of it.
    read = getattr(stream, "read1", stream.read)
    width = int(kind[2]) * channels
    left = size - len(held)
    while left > 0:
        data = read(int(min(PIECE_BYTES * channels, left)))
        left -= len(data)
        held += data
        whole = len(held) // width * width
        if whole:
            yield _to_float(held[:whole], kind, channels), rate
        held = held[whole:]
        if not data:
            break
    if held:
        raise ValueError(
            f"the input ends within a sample: expected {width} bytes per sample, in the end {len(held)} came"
        )
    if math.isfinite(left) and left > 0:
        raise ValueError(
            f"the input ends {left / width / rate:.2f} s before the length that its WAV header tells"
        )


def _to_float(data: bytes, kind: str, channels: int) -> np.ndarray:
    if kind == "<i3":
        bytes_ = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wav = np.pad(bytes_, ((0, 0), (1, 0))).copy().view("<i4")[:, 0] / 2.0**31
    elif kind == "<u1":
        wav = np.frombuffer(data, np.uint8) / 128.0 - 1
    elif kind[1] == "i":
        wav = np.frombuffer(data, kind) / 2.0 ** (8 * int(kind[2]) - 1)
    else:
        wav = np.frombuffer(data, kind)
    return wav.reshape(-1, channels).mean(1).astype(np.float32)


def _read_wav_header(stream: BinaryIO) -> tuple[tuple[str, int, int], float]:
    """Reads up to the samples of a WAV, after RIFF and its size: (sample format, channels, rate), bytes."""
    stream.read(4)
    form = None
    while len(chunk := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            if form is None:
                break
            return form, math.inf if size == 0 or size >= _ENDLESS else size
        if size > 1 << 20:
            break
        body = stream.read(size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            code = int.from_bytes(body[24:26], "little") if code == 0xFFFE else code
            kinds = {(1, 8): "<u1", (1, 16): "<i2", (1, 24): "<i3", (1, 32): "<i4"}
            kind = (kinds | {(3, 32): "<f4", (3, 64): "<f8"}).get((code, bits))
            if kind is None or not 1 <= channels <= 64:
                raise ValueError(
                    f"the input is a WAV of {channels} channel(s) with {bits} bits in format {code}; a "
                    "stream takes integers of 8 to 32 bits or floats: `ffmpeg -i IN -f wav -`"
                )
            form = kind, channels, check_sample_rate(rate)
    raise ValueError("the input is a damaged WAV: no samples follow its header")


def wav_header(rate: int) -> bytes:
    """The 44 bytes before the 16-bit mono samples of a WAV whose length is not known yet."""
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, rate,
                       2 * rate, 2, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", 0xFFFFFFFF)


def to_pcm(wav: np.ndarray) -> bytes:
    """The 16-bit little-endian samples of (n,) float, clipped to [-1, 1)."""
    return np.clip(np.round(wav * 32768), -32768, 32767).astype("<i2").tobytes()
