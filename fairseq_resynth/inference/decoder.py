"""The decoder: streams to speech, the half of the system that needs no encoder.

Long utterances are decoded in chunks. Each has all the context that the generator looks at, so that the
samples stay the same, and the memory depends on the length of a chunk alone.
"""

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.data.units import collapse_runs
from fairseq_resynth.inference.voices import Speaker, speaker_indices, speaker_vectors
from fairseq_resynth.modules.duration_predictor import expand_counts
from fairseq_resynth.modules.generators.inference import (
    InferenceGenerator,
    slow_bfloat16,
    usable_device,
)
from fairseq_resynth.modules.generators.source_filter import SourceClock
from fairseq_resynth.modules.unit_generator import UnitGenerator

OFFLINE_SECONDS = 30  # of a chunk when the whole utterance is known


class UnitDecoder:
    """Runs a unit vocoder, whose weight norm is folded away, on checked streams. `precision` is that of the
    waveform generator, float32 or bfloat16."""

    def __init__(
        self,
        generator: UnitGenerator,
        streams: StreamSpec,
        device: str | torch.device = "cpu",
        precision: str = "float32",
    ):
        self.streams = streams
        self.device = usable_device(device)
        generator.eval().to(self.device)
        generator.generator.remove_weight_norm()
        obstacle = slow_bfloat16(self.device) if precision == "bfloat16" else None
        if obstacle:
            logging.getLogger(__name__).warning(f"{obstacle}: leave --precision out.")
        # A shallow copy: the embeddings are shared, and the caller's waveform generator stays unchanged.
        self.generator = copy.copy(generator)
        self.generator._modules = dict(generator._modules)
        self.generator.generator = InferenceGenerator(
            generator.generator, precision, channels_last=self.device.type == "cpu"
        )

    @torch.inference_mode()
    def decode(
        self,
        units: np.ndarray,
        f0_codes: np.ndarray | None = None,
        speaker: Speaker | None = None,
        unit_lengths: Sequence[int] | None = None,
        f0: np.ndarray | None = None,
        clock: SourceClock | None = None,
        **tokens: str | Sequence[str | None] | None,
    ) -> np.ndarray:
        """Turns streams into speech, (B, 1, U * unit_hop) float32, 0 after the end of a row.

        Args:
            units: (B, U) integers.
            f0_codes: (B, F) integers, F >= U * unit_hop / f0_code_hop, for a model with pitch.
            speaker: a name or index, or one per row; required if the model has several. For a model on
                speaker vectors also (D,) or (B, D) float of norm 1; a name then is that speaker's mean.
            unit_lengths: number of units of each row of a padded batch; None: no padding.
            f0: (B, C, N) float, normalized, N >= U * unit_hop / 80, for a model on continuous F0.
            clock: place of the window in a longer utterance, for a generator with a pulse source.
            tokens: named tokens (`style`, `language`): a name, or one per row; required where the model
                has several names.

        Raises ValueError for values outside the tables, a missing or short stream, or an unknown speaker.
        """
        units = self._integers("units", units, self.streams.num_units)
        rows, inputs = len(units), {"units": units}
        if f0_codes is not None:
            inputs["f0_codes"] = self._integers("f0_codes", f0_codes, self.streams.num_f0_codes)
        if f0 is not None:
            f0, shape = np.asarray(f0, np.float32), (rows, self.streams.f0_channels)
            if f0.ndim != 3 or f0.shape[:2] != shape or not np.isfinite(f0).all():
                expected = (*shape, None)
                raise ValueError(f"f0: found shape {f0.shape}, expected finite values, {expected}.")
            inputs["f0"] = torch.from_numpy(f0).to(self.device)
        if self.streams.has_speaker or speaker is not None:
            inputs["speaker"] = self._voices(speaker, rows)
        for token in {**self.streams.tokens, **tokens}:
            names = tokens.get(token)
            if names is None and token not in self.streams.tokens:
                continue
            names = [names] * rows if names is None or isinstance(names, str) else names
            indices = [self.streams.token_index(token, name) for name in names]
            inputs[token] = torch.tensor(indices, device=self.device)
        if unit_lengths is not None:
            inputs["unit_lengths"] = torch.as_tensor(list(unit_lengths), device=self.device)
        return self.generator(**inputs, clock=clock).float().cpu().numpy()

    @torch.inference_mode()
    def expand(
        self,
        units: Sequence[np.ndarray],
        rate: float = 1.0,
        batch_units: int = 3000,
        speaker: Speaker | None = None,
    ) -> list[np.ndarray]:
        """Repeats each unit for as many frames as the duration predictor says: (U',) int64 units each.

        `units` are (U,) integers of each utterance, where runs of a unit count as one; a `rate` of 2 halves
        every duration; `speaker` is that of `decode`. Batches have `batch_units` with padding, and no result
        depends on its batch. Raises ValueError if the model has no duration predictor, units are outside the
        table, the rate is not above 0, or the speaker is unknown.
        """
        by_speaker = self.generator.durations_need_speaker
        voices = self._voices(speaker, len(units)) if by_speaker else None
        rows = [collapse_runs(row)[0] for row in units]
        expanded: list[np.ndarray] = [np.zeros(0, np.int64)] * len(rows)
        for batch in length_batches([len(row) for row in rows], batch_units):
            lengths = torch.tensor([len(rows[row]) for row in batch], device=self.device)
            padded = self._integers(
                "units", pad_rows([rows[row] for row in batch]), self.streams.num_units
            )
            speakers = None if voices is None else voices[batch]
            log_durations = self.generator.log_durations(padded, lengths, speakers)
            counts = expand_counts(log_durations, rate).cpu()
            for row, repeats in zip(batch, counts.numpy(), strict=True):
                expanded[row] = np.repeat(rows[row], repeats[: len(rows[row])])
        return expanded

    def _integers(self, name: str, values: np.ndarray, size: int) -> torch.Tensor:
        array = np.asarray(values)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer) or array.size == 0:
            raise ValueError(
                f"{name}: found shape {array.shape} of {array.dtype}, expected (B, length) integers."
            )
        if array.min() < 0 or array.max() >= size:
            raise ValueError(
                f"{name}: found values from {array.min()} to {array.max()}, the model has 0 to {size - 1}."
            )
        return torch.as_tensor(array.astype(np.int64), device=self.device)

    def _voices(self, speaker: Speaker | None, rows: int) -> torch.Tensor:
        find = speaker_vectors if self.streams.speaker_dim else speaker_indices
        return torch.from_numpy(find(speaker, self.streams, rows)).to(self.device)


def length_batches(lengths: Sequence[int], limit: float) -> Iterator[list[int]]:
    """Rows in batches of similar length, each of up to `limit` with padding or of a single row. The longest
    come first, so that what exceeds the memory fails at once."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        count = max(1, int(limit // max(1, lengths[order[-1]])))
        yield order[-count:]
        del order[-count:]


def pad_rows(rows: list[np.ndarray | None]) -> np.ndarray:
    """Stacks arrays of different lengths, padded with zeros at the end of their last axis."""
    if any(row is None for row in rows):
        raise ValueError("the model needs pitch, and an utterance comes without it.")
    width = max(row.shape[-1] for row in rows)
    return np.stack(
        [np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, width - row.shape[-1])]) for row in rows]
    )


def units_in(streams: StreamSpec, seconds: float) -> int:
    """The number of units in so many seconds, at least 1."""
    return max(1, round(seconds * streams.sample_rate / streams.unit_hop))


class ChunkDecoder:
    """Decodes streams chunk by chunk to the samples that decoding them at once gives.

    `chunk_units`, 1 or more, are decoded at once, rounded up to whole F0 codes; None: a second. `context` is
    the number of units on either side that are decoded with them and whose samples are discarded; it follows
    from the generator, because less would change the samples.
    """

    def __init__(
        self,
        decoder: UnitDecoder,
        speaker: Speaker | None = None,
        chunk_units: int | None = None,
        tokens: Mapping[str, str] | None = None,
    ):
        if chunk_units is None:
            chunk_units = units_in(decoder.streams, 1)
        if chunk_units < 1:
            raise ValueError(f"chunk_units is {chunk_units}, expected 1 unit or more.")
        self._decoder, self._speaker, self._tokens = decoder, speaker, tokens or {}
        streams = self._streams = decoder.streams
        pitch_hop = streams.f0_code_hop if streams.num_f0_codes else streams.unit_hop
        pitch_hop = F0_HOP if streams.f0_channels else pitch_hop
        # Units and pitch have different hops. Cutting both at the same sample is possible only at multiples
        # of their least common multiple, so chunks, context and what is dropped are whole numbers of spans.
        self._span = math.lcm(streams.unit_hop, pitch_hop) // streams.unit_hop  # in units
        self._span_pitch = self._span * streams.unit_hop // pitch_hop  # in values of the pitch
        generator = decoder.generator.generator
        # The receptive field is given in frames of the generator, which may be shorter than a unit.
        receptive = -(-generator.context_frames * generator.hop // streams.unit_hop)
        self.context, self._chunk = (
            -(-units // self._span) * self._span for units in (receptive, chunk_units)
        )
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
        known = len(self._units)  # units whose pitch is known too
        if self._streams.has_pitch:
            known = min(known, self._pitch.shape[-1] // self._span_pitch * self._span)
        known += self._dropped
        # A chunk is finished only when the context after it is known as well.
        while known >= self._done + self._chunk + self.context:
            pieces.append(self._decode(self._done + self._chunk))
        return np.concatenate(pieces)

    def push_settled(
        self,
        settled: int,
        units: Sequence[int],
        f0_codes: Sequence[int] = (),
        f0: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the samples of the first `settled` units, whole spans of units and pitch, without waiting
        for the generator's whole context. What follows them, one unit or more, is context of these samples
        alone: the next call gives it again, as it is known by then. A pulse source continues in phase."""
        stop = self._dropped + len(self._units) + settled
        self._append(units, f0_codes, f0)
        samples = self._decode(stop, anchor=stop)
        held = stop - self._dropped
        self._units, self._pitch = self._units[:held], self._pitch[..., : self._in_pitch(held)]
        return samples

    def finish(self) -> np.ndarray:
        """The remaining (n,) samples. Raises ValueError if a stream of the model is missing or too short."""
        return np.concatenate([np.zeros(0, np.float32), *self.pieces(())])

    def pieces(
        self, units: Sequence[int], f0_codes: Sequence[int] = (), f0: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Takes the last units and yields the remaining samples, one chunk at a time."""
        self._append(units, f0_codes, f0)
        end = self._dropped + len(self._units)
        while self._done < end:
            yield self._decode(min(self._done + self._chunk, end))

    def _append(self, units: Sequence[int], f0_codes: Sequence[int], f0: np.ndarray | None) -> None:
        self._units = np.append(self._units, np.asarray(units, np.int64))
        if self._streams.f0_channels and f0 is not None:
            self._pitch = np.append(self._pitch, np.asarray(f0, np.float32), axis=1)
        elif self._streams.num_f0_codes:
            self._pitch = np.append(self._pitch, np.asarray(f0_codes, np.int64))

    def _decode(self, stop: int, anchor: int | None = None) -> np.ndarray:
        """Decodes the units up to `stop` with their context, then drops what no later chunk needs. The phase
        is handed over at unit `anchor`, None for where this chunk and the next compute the same F0."""
        first = max(self._done - self.context, 0)
        start, end = first - self._dropped, stop + self.context - self._dropped
        pitch = self._pitch[..., self._in_pitch(start) : self._in_pitch(end)][None]
        wav = self._decoder.decode(
            self._units[None, start:end],
            pitch if self._streams.num_f0_codes else None,
            self._speaker,
            f0=pitch if self._streams.f0_channels else None,
            clock=self._window_clock(first, stop, anchor),
            **self._tokens,
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

    def _window_clock(self, first: int, stop: int, anchor: int | None) -> SourceClock | None:
        """The clock for a window from unit `first`; the next window begins a context before `stop`."""
        if self._pitch_context is None:
            return None
        following = max(stop - self.context, 0) * self._streams.unit_hop
        self._clock.start = first * self._streams.unit_hop
        # F0 at the edge of a window lacks its own context: the phase is handed over behind that edge, where
        # this window and the next compute the same F0.
        self._clock.next_anchor = following + self._pitch_context if following else 0
        if anchor is not None:
            self._clock.next_anchor = anchor * self._streams.unit_hop
        return self._clock

    def _in_pitch(self, units: int) -> int:
        return -(-units // self._span) * self._span_pitch


def decode_in_chunks(
    decoder: UnitDecoder, speech: Utterance, chunk_units: int | None = None
) -> Iterator[np.ndarray]:
    """Decodes an utterance of any length to (n,) float32 pieces of `chunk_units`, 30 s if None, in the memory
    of one piece. The samples do not depend on their number. Raises ValueError as `UnitDecoder.decode`."""
    streams = decoder.streams
    speaker = speech.speaker if streams.has_speaker else None
    tokens = {name: speech.tokens[name] for name in streams.tokens if name in speech.tokens}
    if chunk_units is None:
        chunk_units = units_in(streams, OFFLINE_SECONDS)
    chunks = ChunkDecoder(decoder, speaker, chunk_units, tokens)
    codes = () if speech.f0_codes is None else speech.f0_codes
    return chunks.pieces(speech.units, codes, speech.f0)


def decode_all(
    decoder: UnitDecoder, utterances: Sequence[Utterance], batch_seconds: float = 60.0
) -> list[np.ndarray]:
    """Decodes utterances to (T,) float32 each, in batches of similar length; no result depends on its batch.
    `batch_seconds` of audio with padding are in a batch; longer utterances are decoded in chunks."""
    streams = decoder.streams
    limit = batch_seconds * streams.sample_rate / streams.unit_hop
    wavs: list[np.ndarray] = [np.zeros(0, np.float32)] * len(utterances)
    for rows in length_batches([len(utterance.units) for utterance in utterances], limit):
        batch = [utterances[row] for row in rows]
        if is_long(decoder, batch[0], batch_seconds):  # and it is alone
            wavs[rows[0]] = np.concatenate([*decode_in_chunks(decoder, batch[0])])
            continue
        lengths = [len(speech.units) for speech in batch]
        decoded = decoder.decode(
            pad_rows([speech.units for speech in batch]),
            pad_rows([speech.f0_codes for speech in batch]) if streams.num_f0_codes else None,
            [speech.speaker for speech in batch] if streams.has_speaker else None,
            lengths if min(lengths) != max(lengths) else None,
            pad_rows([speech.f0 for speech in batch]) if streams.f0_channels else None,
            **{name: [speech.tokens.get(name) for speech in batch] for name in streams.tokens},
        )
        for row, wav, length in zip(rows, decoded, lengths, strict=True):
            wavs[row] = wav[0, : length * streams.unit_hop]
    return wavs


def is_long(decoder: UnitDecoder, speech: Utterance, batch_seconds: float = 60.0) -> bool:
    """Whether an utterance is longer than a batch, so that `decode_in_chunks` should decode it."""
    streams = decoder.streams
    return len(speech.units) > batch_seconds * streams.sample_rate / streams.unit_hop
