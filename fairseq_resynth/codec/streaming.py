"""Speech as it is spoken: encoding block by block, and raw samples on pipes."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from fairseq_resynth.codec.format.payload import SAMPLES_MORE
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.pitch.extraction import SHORTEST, extract_f0, num_frames
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.resynthesizer import Resynthesizer

CONTEXT_SECONDS = 1.0  # audio on either side of a block, on which its units and pitch depend too
PIECE_BYTES = 3200  # a tenth of a second


class BlockEncoder:
    """Encodes audio in blocks of fixed length; how the audio arrives does not change the streams.

    Content encoders and pitch trackers look at the audio around a frame, some at all of it. Here each
    block is encoded with a second of audio on both sides, and its pitch is normalized by the statistics
    of the speaker, or of all speakers, since those of the utterance are unknown before its end.

    `seconds`, the length of a block, is rounded to whole F0 codes; `num_samples` counts those taken so far.
    Raises ValueError for a block under 0.1 s, or a bundle without a content encoder or F0 statistics.
    """

    def __init__(self, resynthesizer: Resynthesizer, speaker: str | None, seconds: float):
        self._resynthesizer, self._speaker = resynthesizer, speaker
        streams = resynthesizer.streams
        if resynthesizer.encoder is None:
            raise ValueError("the bundle has no k-means, without which it cannot encode speech")
        if seconds < 0.1:
            raise ValueError(f"found a block of {seconds} s, expected 0.1 s or more")
        grid = np.lcm(streams.f0_code_hop, streams.unit_hop)
        self._block = max(1, round(seconds * streams.sample_rate / grid)) * grid
        self._context = round(CONTEXT_SECONDS * streams.sample_rate / grid) * grid
        self._statistics: SpeakerStatistics | None = resynthesizer.statistics
        if streams.num_f0_codes and self._statistics is None:
            raise ValueError(
                "blocks need the F0 statistics of the bundle's speakers, and it has none"
            )
        self._held = np.zeros(0, np.float32)
        self._start = 0  # number of the first sample of the next block
        self.num_samples = 0

    def push(self, wav: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Takes (n,) float32 at 16 kHz; yields the units and F0 codes of each block that is complete."""
        self._held = np.concatenate([self._held, wav.astype(np.float32)])
        self.num_samples += len(wav)
        while self.num_samples >= self._start + self._block + self._context:
            yield self._encode(last=False)

    def finish(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the remaining blocks; raises ValueError if all the audio is too short for one unit."""
        while self.num_samples > self._start + self._block:
            yield self._encode(last=False)
        yield self._encode(last=True)

    def _encode(self, last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the next block with its context, then drops what no later block needs."""
        streams = self._resynthesizer.streams
        begin = max(self._start - self._context, 0)  # number of the first held sample
        before = self._start - begin
        piece = self._held[: before + self._block + self._context]
        units = self._resynthesizer.encoder.encode(piece)[before // streams.unit_hop :]
        codes = self._f0_codes(piece)[before // streams.f0_code_hop :]
        if not last:
            units = units[: self._block // streams.unit_hop]
        # As many codes as start within the units: the streams of all blocks then join without a gap.
        codes = codes[: -(-len(units) * streams.unit_hop // streams.f0_code_hop)]
        self._start += self._block
        self._held = self._held[max(self._start - self._context, 0) - begin :]
        return units, codes

    def _f0_codes(self, piece: np.ndarray) -> np.ndarray:
        streams = self._resynthesizer.streams
        if not streams.num_f0_codes:
            return np.zeros(0, np.int64)
        f0 = np.zeros(num_frames(len(piece)), np.float32)
        if len(piece) >= SHORTEST:
            f0 = extract_f0(piece, streams.f0_codes.get("f0_method", "yaapt"))
        entry = self._statistics.entry(self._speaker)
        return self._resynthesizer.pitch.representation.encode(f0, entry)


def read_pcm(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yields (n,) float32 pieces of 16-bit little-endian mono audio at 16 kHz as it arrives.

    The stream is raw, or a WAV file; raises ValueError if its header tells another format, or the input ends
    within a sample.
    """
    held = stream.read(4)
    if held == b"RIFF":
        _skip_wav_header(stream)
        held = b""
    # What has arrived, instead of waiting for all of it.
    read = getattr(stream, "read1", stream.read)
    while True:
        data = read(PIECE_BYTES)
        held += data
        whole = len(held) // 2 * 2
        yield np.frombuffer(held[:whole], dtype="<i2").astype(np.float32) / 32768
        held = held[whole:]
        if not data:
            break
    if held:
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
    """The 16-bit little-endian samples of (n,) float, clipped to [-1, 1)."""
    return np.clip(np.round(wav * 32768), -32768, 32767).astype("<i2").tobytes()


def fit_length(wav: np.ndarray, num_samples: int, rate: float) -> np.ndarray:
    """Cuts or pads speech with silence to the length of the original divided by `rate`.

    A content encoder leaves up to a frame of the end without a unit; a difference of more than 1024 samples
    has another reason, and the speech is then returned as it is.
    """
    wanted = round(num_samples / rate)
    if abs(wanted - len(wav)) * min(rate, 1.0) > SAMPLES_MORE:
        return wav
    return np.pad(wav[:wanted], (0, max(wanted - len(wav), 0)))
