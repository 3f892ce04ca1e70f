"""Streams to speech: the half of the system that needs no encoder."""

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch

from fairseq_resynth.data.speaker_vectors import parse_vectors
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.data.units import collapse_runs
from fairseq_resynth.modules.duration_predictor import expand_counts
from fairseq_resynth.modules.generators.inference import (
    InferenceGenerator,
    slow_bfloat16,
    usable_device,
)
from fairseq_resynth.modules.generators.pulses import SourceClock
from fairseq_resynth.modules.unit_generator import UnitGenerator

Speaker = str | int | Sequence[str | int] | np.ndarray


def known_voices(streams: StreamSpec) -> str:
    """Returns the names of a model's speakers for a message, the first twenty."""
    names = ", ".join(streams.speakers[:20]) + (" …" if len(streams.speakers) > 20 else "")
    return names or "none"


def speaker_indices(speaker: Speaker | None, streams: StreamSpec, rows: int) -> np.ndarray:
    """Returns the (rows,) int64 rows of the table; a model with one speaker needs none given.

    Raises:
        ValueError: no speaker, an unknown one, or not one a row.
    """
    if speaker is None and len(streams.speakers) == 1:
        speaker = 0
    if speaker is None:
        raise ValueError(
            f"give a speaker; the model has {', '.join(streams.speakers)}: --target NAME."
        )
    names = [speaker] * rows if isinstance(speaker, str | int | np.integer) else list(speaker)
    if len(names) != rows:
        raise ValueError(f"found {len(names)} speakers for {rows} rows.")
    return np.array([_index(name, streams) for name in names], dtype=np.int64)


def _index(name: str | int | None, streams: StreamSpec) -> int:
    if isinstance(name, str):
        return streams.speaker_index(name)
    if name is None and len(streams.speakers) == 1:
        return 0
    if isinstance(name, np.ndarray) and name.ndim:
        raise ValueError(
            "a speaker vector was given, and the model has a table of speakers: "
            f"{known_voices(streams)}. Make a bundle on vectors with `resynth export … --speaker-vectors`."
        )
    if name is None:
        raise ValueError(f"give a speaker; the model has {known_voices(streams)}: --target NAME.")
    if not 0 <= int(name) < len(streams.speakers):
        raise ValueError(f"speaker {name!r}: the model has {known_voices(streams)}.")
    return int(name)


def speaker_vectors(speaker: Speaker | None, streams: StreamSpec, rows: int) -> np.ndarray:
    """Returns (rows, D) float32, for a model on vectors.

    Args:
        speaker: (D,) or (rows, D), or a name or index of a known speaker, or a list of any of these.
        streams: of the model.
        rows: of the batch.

    Raises:
        ValueError: no speaker, an unknown one, not one a row, or of other dimensions.
    """
    dim = streams.speaker_dim
    if speaker is None and len(streams.speakers) != 1:
        raise ValueError(
            f"give a speaker: a vector of {dim} numbers, or one of {known_voices(streams)}."
        )
    if speaker is None or isinstance(speaker, str | int | np.integer):
        vectors = _known_vector(speaker, streams)[None]
    elif isinstance(speaker, np.ndarray):
        vectors = np.atleast_2d(speaker)
    else:
        vectors = [
            np.asarray(one) if isinstance(one, np.ndarray) else _known_vector(one, streams)
            for one in speaker
        ]
        if len({vector.shape for vector in vectors}) > 1:
            raise ValueError(f"found speaker vectors of several sizes, expected ({dim},).")
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim or len(vectors) not in (1, rows):
        raise ValueError(f"speaker: found shape {vectors.shape}, expected {(rows, dim)}.")
    if not np.isfinite(vectors).all():
        raise ValueError("speaker: the vector has NaN or infinity in it.")
    return np.repeat(vectors, rows // len(vectors), axis=0)


def _known_vector(name: str | int | None, streams: StreamSpec) -> np.ndarray:
    known = streams.speakers[_index(name, streams)]
    means = streams.speaker_vectors.get("means", {})
    if known not in means:
        raise ValueError(f"the model knows no vector of {known!r}: give one.")
    return parse_vectors({known: means[known]}, streams.speaker_dim)[known]


def style_indices(style: str | Sequence[str] | None, streams: StreamSpec, rows: int) -> np.ndarray:
    """Returns the (rows,) int64 rows of the table of styles; a model with one needs none given.

    Raises:
        ValueError: an unknown style, or none.
    """
    names = list(streams.styles)
    wanted = [style] * rows if style is None or isinstance(style, str) else list(style)
    if len(names) == 1:
        wanted = [name or names[0] for name in wanted]
    for name in wanted:
        if name not in names:
            raise ValueError(f"style {name!r}: the model has {', '.join(names) or 'none'}.")
    return np.array([names.index(name) for name in wanted], dtype=np.int64)


class UnitDecoder:
    """Runs a unit vocoder on checked streams.

    Args:
        generator: the unit vocoder; its weight norm is folded away.
        streams: what it was trained on.
        device: where to compute.
        precision: of the waveform generator, float32 or bfloat16.
    """

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
        # The embeddings are shared; the caller's waveform generator stays as it was trained.
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
        style: str | Sequence[str] | None = None,
        clock: SourceClock | None = None,
    ) -> np.ndarray:
        """Turns streams into speech.

        Args:
            units: (B, U) integers.
            f0_codes: (B, F) integers, F >= U * unit_hop / f0_code_hop, for a model with pitch.
            speaker: a name or index, or one a row; needed when the model has several. For a model on
                speaker vectors also (D,) or (B, D) float, of length 1; a name there is that speaker's mean.
            unit_lengths: units of each row of a padded batch; None: no padding.
            f0: (B, C, N) float, normalised, N >= U * unit_hop / 80, for a model on continuous F0.
            style: a name, or one a row; needed when the model has several.
            clock: of a window of one longer utterance, see `ChunkDecoder`.

        Returns:
            (B, 1, U * unit_hop) float32, 0 behind a row's end.

        Raises:
            ValueError: values outside the tables, a stream missing or too short, an unknown speaker.
        """
        units = self._integers("units", units, self.streams.num_units)
        inputs = {"units": units}
        if f0_codes is not None:
            inputs["f0_codes"] = self._integers("f0_codes", f0_codes, self.streams.num_f0_codes)
        if f0 is not None:
            inputs["f0"] = self._floats("f0", f0, (len(units), self.streams.f0_channels, None))
        if self.streams.speaker_dim or self.streams.speakers or speaker is not None:
            inputs["speaker"] = self._voices(speaker, len(units))
        if self.streams.styles or style is not None:
            inputs["style"] = self._tensor(style_indices(style, self.streams, len(units)))
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
        """Repeats each unit as often as the duration predictor says.

        Args:
            units: (U,) integers of each utterance; runs of a unit count as one.
            rate: of speaking; 2 halves every duration.
            batch_units: in a batch, padding included; a row's result does not depend on its batch.
            speaker: whose durations, as for `decode`; ignored by a predictor that knows no speakers.

        Returns:
            (U',) int64 units at the model's rate for each utterance.

        Raises:
            ValueError: the model has no duration predictor, units outside the table, no positive rate, an
                unknown speaker.
        """
        voices = None
        if self.generator.durations_need_speaker:
            voices = self._voices(speaker, len(units))
        rows = [collapse_runs(row)[0] for row in units]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        expanded: list[np.ndarray] = [np.zeros(0, np.int64)] * len(rows)
        while order:
            count = max(1, batch_units // max(1, len(rows[order[-1]])))
            batch, order = order[-count:], order[:-count]
            lengths = torch.tensor([len(rows[row]) for row in batch], device=self.device)
            padded = self._integers(
                "units", pad_rows([rows[row] for row in batch]), self.streams.num_units
            )
            own = None if voices is None else voices[batch]
            counts = expand_counts(self.generator.log_durations(padded, lengths, own), rate).cpu()
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
        return self._tensor(find(speaker, self.streams, rows))

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def _floats(self, name: str, values: np.ndarray, shape: tuple) -> torch.Tensor:
        array = np.asarray(values, np.float32)
        fits = array.ndim == len(shape) and all(
            expected in (None, found) for expected, found in zip(shape, array.shape, strict=True)
        )
        if not fits or not np.isfinite(array).all():
            raise ValueError(f"{name}: found shape {array.shape}, expected finite values, {shape}.")
        return self._tensor(array)


def pad_rows(rows: list[np.ndarray | None]) -> np.ndarray:
    """Stacks arrays of different lengths with zeros at the end of their last axis."""
    if any(row is None for row in rows):
        raise ValueError("the model needs pitch, and an utterance comes without it.")
    width = max(row.shape[-1] for row in rows)
    return np.stack(
        [np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, width - row.shape[-1])]) for row in rows]
    )
