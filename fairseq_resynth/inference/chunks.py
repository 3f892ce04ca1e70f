"""Decoding in chunks: the generator hears each with all the context that it looks at, so nothing changes.

The memory that it takes depends on the chunk, not on the utterance. The codec decodes its streams so, and
`resynth synthesize` what is longer than a minute.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.decoder import Speaker, UnitDecoder, pad_rows
from fairseq_resynth.modules.generators.pulses import SourceClock

OFFLINE_UNITS = 1500  # decoded at once when all of an utterance is at hand


class ChunkDecoder:
    """Turns streams into samples chunk by chunk, equal to decoding them at once.

    Args:
        decoder: the unit vocoder.
        speaker: name, index or vector; None for a model without speakers.
        chunk_units: units decoded at once, beside their context; rounded up to whole F0 codes.
        style: name, for a model with styles.

    Raises:
        ValueError: a chunk without units. The context is the generator's own and cannot be chosen: with less,
            the samples would not be those of decoding at once.

    Attributes:
        context: units kept on either side of a chunk.
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
        pitch_hop = _pitch_hop(streams)
        # A chunk is a whole number of spans: the fewest units that end where a value of the pitch ends.
        self._span = math.lcm(streams.unit_hop, pitch_hop) // streams.unit_hop
        self._span_pitch = self._span * streams.unit_hop // pitch_hop
        generator = decoder.generator.generator
        context = -(-generator.context_frames * generator.hop // streams.unit_hop)
        self.context = self._whole_spans(context)
        self._chunk = self._whole_spans(chunk_units)
        self._units = np.zeros(0, np.int64)
        self._pitch = np.zeros(0, np.int64)
        if streams.f0_channels:
            self._pitch = np.zeros((streams.f0_channels, 0), np.float32)
        self._pitch_context = generator.pitch_context_frames
        if self._pitch_context is not None:
            self._pitch_context *= generator.hop
        self._clock = SourceClock()
        self._dropped = 0  # units before the first held one, a whole number of spans
        self._done = 0  # units whose samples were given

    def push(
        self, units: Sequence[int], f0_codes: Sequence[int] = (), f0: np.ndarray | None = None
    ) -> np.ndarray:
        """Takes units and their pitch as codes or (C, N) continuous F0; returns the samples that are ready.

        Returns:
            (n,) float32.
        """
        self._take(units, f0_codes, f0)
        return _joined(self._ready())

    def finish(self) -> np.ndarray:
        """Returns the remaining samples.

        Raises:
            ValueError: a stream that the model needs is missing or too short.
        """
        return _joined(self._rest())

    def pieces(
        self, units: Sequence[int], f0_codes: Sequence[int] = (), f0: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Takes the last units and gives the remaining samples, a chunk at a time."""
        self._take(units, f0_codes, f0)
        yield from self._rest()

    def _take(self, units: Sequence[int], f0_codes: Sequence[int], f0: np.ndarray | None) -> None:
        self._units = np.append(self._units, np.asarray(units, np.int64))
        if self._streams.f0_channels and f0 is not None:
            self._pitch = np.append(self._pitch, np.asarray(f0, np.float32), axis=1)
        elif self._streams.num_f0_codes:
            self._pitch = np.append(self._pitch, np.asarray(f0_codes, np.int64))

    def _ready(self) -> Iterator[np.ndarray]:
        while self._known() >= self._done + self._chunk + self.context:
            yield self._decode(self._done + self._chunk)

    def _rest(self) -> Iterator[np.ndarray]:
        end = self._dropped + len(self._units)
        while self._done < end:
            yield self._decode(min(self._done + self._chunk, end))

    def _known(self) -> int:
        known = len(self._units)
        if self._streams.num_f0_codes or self._streams.f0_channels:
            known = min(known, self._pitch.shape[-1] // self._span_pitch * self._span)
        return self._dropped + known

    def _decode(self, stop: int) -> np.ndarray:
        """Decodes units up to `stop`, with context on both sides, and forgets what is no longer needed."""
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
        keep = max(stop - self.context, 0) // self._span * self._span - self._dropped
        self._units = self._units[keep:]
        self._pitch = self._pitch[..., self._in_pitch(keep) :]
        self._dropped += keep
        return samples

    def _window_clock(self, first: int, stop: int) -> SourceClock | None:
        """Sets the clock for a window from unit `first`, whose next begins a context before `stop`."""
        if self._pitch_context is None:
            return None
        following = max(stop - self.context, 0) * self._streams.unit_hop
        self._clock.start = first * self._streams.unit_hop
        self._clock.next_anchor = following + self._pitch_context if following else 0
        return self._clock

    def _whole_spans(self, units: int) -> int:
        return -(-units // self._span) * self._span

    def _in_pitch(self, units: int) -> int:
        return -(-units // self._span) * self._span_pitch


def decode_in_chunks(
    decoder: UnitDecoder, speech: Utterance, chunk_units: int = OFFLINE_UNITS
) -> Iterator[np.ndarray]:
    """Turns an utterance of any length into (n,) float32 pieces, in the memory of one chunk.

    Args:
        decoder: the unit vocoder.
        speech: the utterance, with its speaker.
        chunk_units: units of a piece; the output does not depend on it.

    Raises:
        ValueError: as `UnitDecoder.decode`.
    """
    speaker = speech.speaker if decoder.streams.speakers or decoder.streams.speaker_dim else None
    style = speech.style if decoder.streams.styles else None
    codes = () if speech.f0_codes is None else speech.f0_codes
    chunks = ChunkDecoder(decoder, speaker, chunk_units, style)
    return chunks.pieces(speech.units, codes, speech.f0)


def decode_all(
    decoder: UnitDecoder, utterances: Sequence[Utterance], batch_seconds: float = 60.0
) -> list[np.ndarray]:
    """Turns utterances into speech, in batches of similar length: each is as it would be alone.

    Args:
        decoder: the unit vocoder.
        utterances: each with its speaker.
        batch_seconds: of audio in a batch, padding included; a longer utterance is decoded in chunks.

    Returns:
        (T,) float32 for each utterance, in the order given.
    """
    limit = _units_in(decoder.streams, batch_seconds)
    order = sorted(range(len(utterances)), key=lambda row: len(utterances[row].units))
    wavs: list[np.ndarray] = [np.zeros(0, np.float32)] * len(utterances)
    while order:
        longest = max(1, len(utterances[order[-1]].units))
        if longest > limit:
            row = order.pop()
            wavs[row] = np.concatenate([*decode_in_chunks(decoder, utterances[row])])
            continue
        count = max(1, int(limit // longest))
        batch, order = order[-count:], order[:-count]
        for row, wav in zip(
            batch, _decode_batch(decoder, [utterances[r] for r in batch]), strict=True
        ):
            wavs[row] = wav
    return wavs


def is_long(decoder: UnitDecoder, speech: Utterance, batch_seconds: float = 60.0) -> bool:
    """Tells whether an utterance is longer than a batch, so that `decode_in_chunks` is for it."""
    return len(speech.units) > _units_in(decoder.streams, batch_seconds)


def _units_in(streams: StreamSpec, seconds: float) -> float:
    return seconds * streams.sample_rate / streams.unit_hop


def _decode_batch(decoder: UnitDecoder, utterances: list[Utterance]) -> list[np.ndarray]:
    lengths = [len(utterance.units) for utterance in utterances]
    f0_codes = None
    if decoder.streams.num_f0_codes:
        f0_codes = pad_rows([utterance.f0_codes for utterance in utterances])
    f0 = None
    if decoder.streams.f0_channels:
        f0 = pad_rows([utterance.f0 for utterance in utterances])
    has_speakers = decoder.streams.speakers or decoder.streams.speaker_dim
    wavs = decoder.decode(
        pad_rows([utterance.units for utterance in utterances]),
        f0_codes,
        [u.speaker for u in utterances] if has_speakers else None,
        lengths if min(lengths) != max(lengths) else None,
        f0,
        [u.style for u in utterances] if decoder.streams.styles else None,
    )
    hop = decoder.streams.unit_hop
    return [wav[0, : length * hop] for wav, length in zip(wavs, lengths, strict=True)]


def _pitch_hop(streams: StreamSpec) -> int:
    if streams.num_f0_codes:
        return streams.f0_code_hop
    return F0_HOP if streams.f0_channels else streams.unit_hop


def _joined(pieces: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *pieces])
