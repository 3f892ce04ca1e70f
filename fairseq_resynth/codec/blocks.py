"""Encoding of speech block by block, so that it can be sent while it is spoken."""

from collections.abc import Iterator

import numpy as np

from fairseq_resynth.data.f0 import SHORTEST, extract_f0, num_frames
from fairseq_resynth.data.speakers import SpeakerStatistics
from fairseq_resynth.resynthesizer import Resynthesizer

CONTEXT_SECONDS = 1.0  # audio beside a block that its units and its pitch are found with


class BlockEncoder:
    """Encodes audio in blocks of fixed length; how the audio arrives does not change the streams.

    Content encoders and pitch trackers look at the audio around a frame, some at all of it. Here each
    block is encoded with a second of audio on both sides, and its pitch is normalised by the statistics
    of the speaker, or of all speakers, since those of the utterance are not known before its end.

    Args:
        resynthesizer: with an encoder.
        speaker: name, or None.
        seconds: length of a block; rounded to whole F0 codes.

    Attributes:
        num_samples: taken so far.

    Raises:
        ValueError: the block is shorter than a tenth of a second, or the pitch's statistics are missing.
    """

    def __init__(self, resynthesizer: Resynthesizer, speaker: str | None, seconds: float):
        self._resynthesizer, self._speaker = resynthesizer, speaker
        streams = resynthesizer.streams
        if resynthesizer.encoder is None:
            raise ValueError("the bundle has no k-means: it cannot encode speech")
        if seconds < 0.1:
            raise ValueError(f"a block of {seconds} s: expected 0.1 s or more")
        grid = np.lcm(streams.f0_code_hop, streams.unit_hop)
        self._block = max(1, round(seconds * streams.sample_rate / grid)) * grid
        self._context = round(CONTEXT_SECONDS * streams.sample_rate / grid) * grid
        self._statistics: SpeakerStatistics | None = resynthesizer.statistics
        if streams.num_f0_codes and self._statistics is None:
            raise ValueError(
                "blocks need the F0 statistics of the bundle's speakers, and it has none"
            )
        self._held = np.zeros(0, np.float32)
        self._first = 0  # sample number of the first held one
        self._start = 0  # of the block to come
        self.num_samples = 0

    def push(self, wav: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Takes (n,) float32 at 16 kHz; yields units and F0 codes of each block that is complete."""
        self._held = np.concatenate([self._held, wav.astype(np.float32)])
        self.num_samples += len(wav)
        while self.num_samples >= self._start + self._block + self._context:
            yield self._encode(last=False)

    def finish(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the remaining blocks.

        Raises:
            ValueError: all the audio is too short for a unit.
        """
        while self.num_samples > self._start + self._block:
            yield self._encode(last=False)
        yield self._encode(last=True)

    def _encode(self, last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the block at hand with what is beside it, and forgets what no later block needs."""
        streams = self._resynthesizer.streams
        begin = max(self._start - self._context, 0)
        piece = self._held[
            begin - self._first : self._start + self._block + self._context - self._first
        ]
        before = self._start - begin
        units = self._resynthesizer.encoder.encode(piece)[before // streams.unit_hop :]
        codes = self._f0_codes(piece)[before // streams.f0_code_hop :]
        if not last:
            units = units[: self._block // streams.unit_hop]
        codes = codes[: -(-len(units) * streams.unit_hop // streams.f0_code_hop)]
        self._start += self._block
        keep = max(self._start - self._context, 0)
        self._held, self._first = self._held[keep - self._first :], keep
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
