"""Audio that arrives, encoded block by block into units and F0 codes."""

from collections.abc import Iterable, Iterator

import numpy as np

from fairseq_resynth.data.pitch.extraction import SHORTEST, num_frames
from fairseq_resynth.resynthesizer import Resynthesizer

CONTEXT_SECONDS = 1.0  # audio on either side of a block, on which its units and pitch depend too


class BlockEncoder:
    """Encodes audio in blocks of fixed length; how the audio arrives does not change the streams.

    Each block, of `seconds` rounded to whole F0 codes, is encoded with a second of audio on both sides, at
    which content encoders and pitch trackers look too. Its pitch is normalized by the statistics of the
    speaker, or of all speakers, since those of the utterance are unknown before its end. Raises ValueError
    for a block under 0.1 s, or a bundle without a content encoder or F0 statistics.
    """

    def __init__(self, resynthesizer: Resynthesizer, speaker: str | None, seconds: float):
        self._resynthesizer, streams = resynthesizer, resynthesizer.streams
        if seconds < 0.1:
            raise ValueError(f"found a block of {seconds} s, expected 0.1 s or more")
        grid = np.lcm(streams.f0_code_hop, streams.unit_hop)
        self._block = max(1, round(seconds * streams.sample_rate / grid)) * grid
        self._context = max(1, round(CONTEXT_SECONDS * streams.sample_rate / grid)) * grid
        if streams.num_f0_codes:
            self._entry = resynthesizer.pitch.voice_entry(speaker)
        self._held = np.zeros(0, np.float32)
        self._start = 0  # number of the first sample of the next block
        self.num_samples = 0  # taken so far

    def encode(self, audio: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the units and F0 codes of each block of (n,) pieces as soon as it is complete. Raises
        ValueError if all the audio is too short for one unit."""
        for wav in audio:
            self._held = np.concatenate([self._held, wav.astype(np.float32)])
            self.num_samples += len(wav)
            while self.num_samples >= self._start + self._block + self._context:
                yield self._encode_block(last=False)
        while self.num_samples > self._start + self._block:
            yield self._encode_block(last=False)
        yield self._encode_block(last=True)

    def _encode_block(self, last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the next block with its context, then drops what no later block needs."""
        streams = self._resynthesizer.streams
        begin = max(self._start - self._context, 0)  # number of the first held sample
        before = self._start - begin
        piece = self._held[: before + self._block + self._context]
        units = self._resynthesizer.units(piece)[before // streams.unit_hop :]
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
        pitch, f0 = self._resynthesizer.pitch, np.zeros(num_frames(len(piece)), np.float32)
        if len(piece) >= SHORTEST:
            f0 = pitch.extract(piece)
        return pitch.representation.encode(f0, self._entry)
