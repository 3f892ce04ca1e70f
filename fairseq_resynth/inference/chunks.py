"""Decoding in chunks: each has all the context that the generator looks at, so the samples stay the same.

The memory depends on the length of a chunk, not on that of the utterance. The codec decodes its streams this
way, and `resynth synthesize` every utterance that is longer than a minute.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.decoder import UnitDecoder, length_batches, pad_rows
from fairseq_resynth.inference.voices import Speaker
from fairseq_resynth.modules.generators.source_filter import SourceClock

OFFLINE_UNITS = 1500  # units of a chunk when the whole utterance is known: 30 s at 50 Hz


class ChunkDecoder:
    """Decodes streams chunk by chunk to the samples that decoding them at once gives.

    Args:
        decoder: the unit vocoder.
        speaker: name, index or vector; None for a model without speakers.
        chunk_units: units decoded at once, without their context; rounded up to whole F0 codes. Raises
            ValueError if there are none.
        style: name, for a model with styles.

    Attributes:
        context: units on either side of a chunk that are decoded with it and whose samples are discarded. It
            follows from the generator and cannot be chosen, because less would change the samples.
    """

    def __init__(
        self,
        decoder: UnitDecoder,
        speaker: Speaker | None = None,
        chunk_units: int = 50,
        style: str | None = None,
    ):
        if chunk_units < 1:
            raise ValueError(f"chunk_units is {chunk_units}, expected 1 unit or more.")
        self._decoder, self._speaker, self._style = decoder, speaker, style
        streams = self._streams = decoder.streams
        pitch_hop = streams.f0_code_hop if streams.num_f0_codes else streams.unit_hop
        pitch_hop = F0_HOP if streams.f0_channels else pitch_hop
        # Units and pitch have different hops. Cutting both at the same sample is possible only at multiples
        # of their least common multiple, so chunks, context and what is dropped are whole numbers of spans.
        self._span = math.lcm(streams.unit_hop, pitch_hop) // streams.unit_hop  # in units
        self._span_pitch = self._span * streams.unit_hop // pitch_hop  # in values of the pitch
        generator = decoder.generator.generator
        # The receptive field is given in frames of the generator, which may be shorter than a unit.
        self.context = self._whole_spans(
            -(-generator.context_frames * generator.hop // streams.unit_hop)
        )
        self._chunk = self._whole_spans(chunk_units)
        self._units = self._pitch = np.zeros(0, np.int64)
        if streams.f0_channels:
            self._pitch = np.zeros((streams.f0_channels, 0), np.float32)
        # The phase of a pulse source is a sum over the F0 of all samples before, which no context can hold:
        # the clock carries the phase from window to window.
        self._clock = SourceClock()
        self._pitch_context = generator.pitch_context_frames
        if self._pitch_context is not None:
            self._pitch_context *= generator.hop  # in samples
        self._dropped = 0  # units before the first one in memory, a whole number of spans
        self._done = 0  # units whose samples were returned

    def push(
        self, units: Sequence[int], f0_codes: Sequence[int] = (), f0: np.ndarray | None = None
    ) -> np.ndarray:
        """Takes units and their pitch, as codes or (C, N) continuous F0; returns the finished samples."""
        self._append(units, f0_codes, f0)
        pieces = [np.zeros(0, np.float32)]
        # A chunk is finished only when the context after it is known as well.
        while self._num_known() >= self._done + self._chunk + self.context:
            pieces.append(self._decode(self._done + self._chunk))
        return np.concatenate(pieces)

    def finish(self) -> np.ndarray:
        """The remaining (n,) samples. Raises ValueError if a stream of the model is missing or too short."""
        return np.concatenate([np.zeros(0, np.float32), *self._rest()])

    def pieces(
        self, units: Sequence[int], f0_codes: Sequence[int] = (), f0: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Takes the last units and yields the remaining samples, one chunk at a time."""
        self._append(units, f0_codes, f0)
        yield from self._rest()

    def _append(self, units: Sequence[int], f0_codes: Sequence[int], f0: np.ndarray | None) -> None:
        self._units = np.append(self._units, np.asarray(units, np.int64))
        if self._streams.f0_channels and f0 is not None:
            self._pitch = np.append(self._pitch, np.asarray(f0, np.float32), axis=1)
        elif self._streams.num_f0_codes:
            self._pitch = np.append(self._pitch, np.asarray(f0_codes, np.int64))

    def _rest(self) -> Iterator[np.ndarray]:
        end = self._dropped + len(self._units)
        while self._done < end:
            yield self._decode(min(self._done + self._chunk, end))

    def _num_known(self) -> int:
        """The number of units whose pitch is known too."""
        known = len(self._units)
        if self._streams.has_pitch:
            known = min(known, self._pitch.shape[-1] // self._span_pitch * self._span)
        return self._dropped + known

    def _decode(self, stop: int) -> np.ndarray:
        """Decodes the units up to `stop` with their context, then drops what no later chunk needs."""
        first = max(self._done - self.context, 0)
        start, end = first - self._dropped, stop + self.context - self._dropped
        pitch = self._pitch[..., self._in_pitch(start) : self._in_pitch(end)][None]
        wav = self._decoder.decode(
            self._units[None, start:end],
            pitch if self._streams.num_f0_codes else None,
            self._speaker,
            f0=pitch if self._streams.f0_channels else None,
            style=self._style,
            clock=self._window_clock(first, stop),
        )
        hop = self._streams.unit_hop
        samples = wav[0, 0, (self._done - first) * hop : (stop - first) * hop]
        self._done = stop
        # The next window begins a context before `stop`; the last chunk may end within a span.
        keep = max(stop - self.context, 0) // self._span * self._span - self._dropped
        self._units = self._units[keep:]
        self._pitch = self._pitch[..., self._in_pitch(keep) :]
        self._dropped += keep
        return samples

    def _window_clock(self, first: int, stop: int) -> SourceClock | None:
        """The clock for a window from unit `first`; the next window begins a context before `stop`."""
        if self._pitch_context is None:
            return None
        following = max(stop - self.context, 0) * self._streams.unit_hop
        self._clock.start = first * self._streams.unit_hop
        # F0 at the edge of a window lacks its own context: the phase is handed over behind that edge, where
        # this window and the next compute the same F0.
        self._clock.next_anchor = following + self._pitch_context if following else 0
        return self._clock

    def _whole_spans(self, units: int) -> int:
        return -(-units // self._span) * self._span

    def _in_pitch(self, units: int) -> int:
        return -(-units // self._span) * self._span_pitch


def decode_in_chunks(
    decoder: UnitDecoder, speech: Utterance, chunk_units: int = OFFLINE_UNITS
) -> Iterator[np.ndarray]:
    """Decodes an utterance of any length to (n,) float32 pieces, in the memory of one chunk.

    The samples do not depend on `chunk_units`, the units of a piece. Raises ValueError as
    `UnitDecoder.decode`.
    """
    streams = decoder.streams
    speaker = speech.speaker if streams.has_speaker else None
    chunks = ChunkDecoder(decoder, speaker, chunk_units, speech.style if streams.styles else None)
    codes = () if speech.f0_codes is None else speech.f0_codes
    return chunks.pieces(speech.units, codes, speech.f0)


def decode_all(
    decoder: UnitDecoder, utterances: Sequence[Utterance], batch_seconds: float = 60.0
) -> list[np.ndarray]:
    """Decodes utterances to (T,) float32 each, in batches of similar length; no result depends on its batch.

    `batch_seconds` of audio with padding are in a batch; longer utterances are decoded in chunks.
    """
    limit = _units_in(decoder.streams, batch_seconds)
    wavs: list[np.ndarray] = [np.zeros(0, np.float32)] * len(utterances)
    for rows in length_batches([len(utterance.units) for utterance in utterances], limit):
        batch = [utterances[row] for row in rows]
        if len(batch[0].units) > limit:  # and it is alone
            decoded = [np.concatenate([*decode_in_chunks(decoder, batch[0])])]
        else:
            decoded = _decode_batch(decoder, batch)
        for row, wav in zip(rows, decoded, strict=True):
            wavs[row] = wav
    return wavs


def is_long(decoder: UnitDecoder, speech: Utterance, batch_seconds: float = 60.0) -> bool:
    """Whether an utterance is longer than a batch, so that `decode_in_chunks` should decode it."""
    return len(speech.units) > _units_in(decoder.streams, batch_seconds)


def _units_in(streams: StreamSpec, seconds: float) -> float:
    return seconds * streams.sample_rate / streams.unit_hop


def _decode_batch(decoder: UnitDecoder, utterances: list[Utterance]) -> list[np.ndarray]:
    streams, lengths = decoder.streams, [len(speech.units) for speech in utterances]
    wavs = decoder.decode(
        pad_rows([speech.units for speech in utterances]),
        pad_rows([speech.f0_codes for speech in utterances]) if streams.num_f0_codes else None,
        [speech.speaker for speech in utterances] if streams.has_speaker else None,
        lengths if min(lengths) != max(lengths) else None,
        pad_rows([speech.f0 for speech in utterances]) if streams.f0_channels else None,
        [speech.style for speech in utterances] if streams.styles else None,
    )
    hop = streams.unit_hop
    return [wav[0, : length * hop] for wav, length in zip(wavs, lengths, strict=True)]
