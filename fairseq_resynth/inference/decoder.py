"""The decoder: streams to speech, the half of the system that needs no encoder."""

import copy
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.data.units import collapse_runs
from fairseq_resynth.inference.voices import (
    Speaker,
    speaker_indices,
    speaker_vectors,
    style_indices,
)
from fairseq_resynth.modules.duration_predictor import expand_counts
from fairseq_resynth.modules.generators.inference import (
    InferenceGenerator,
    slow_bfloat16,
    usable_device,
)
from fairseq_resynth.modules.generators.source_filter import SourceClock
from fairseq_resynth.modules.unit_generator import UnitGenerator


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
        style: str | Sequence[str] | None = None,
        clock: SourceClock | None = None,
    ) -> np.ndarray:
        """Turns streams into speech, (B, 1, U * unit_hop) float32, 0 after the end of a row.

        Args:
            units: (B, U) integers.
            f0_codes: (B, F) integers, F >= U * unit_hop / f0_code_hop, for a model with pitch.
            speaker: a name or index, or one per row; required if the model has several. For a model on
                speaker vectors also (D,) or (B, D) float of norm 1; a name then is that speaker's mean.
            unit_lengths: number of units of each row of a padded batch; None: no padding.
            f0: (B, C, N) float, normalized, N >= U * unit_hop / 80, for a model on continuous F0.
            style: a name, or one per row; required if the model has several.
            clock: place of the window in a longer utterance, for a generator with a pulse source.

        Raises ValueError for values outside the tables, a missing or short stream, or an unknown speaker.
        """
        units = self._integers("units", units, self.streams.num_units)
        inputs = {"units": units}
        if f0_codes is not None:
            inputs["f0_codes"] = self._integers("f0_codes", f0_codes, self.streams.num_f0_codes)
        if f0 is not None:
            inputs["f0"] = self._continuous_f0(f0, (len(units), self.streams.f0_channels))
        if self.streams.has_speaker or speaker is not None:
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
        """Repeats each unit for as many frames as the duration predictor says: (U',) int64 units each.

        Args:
            units: (U,) integers of each utterance; runs of a unit count as one.
            rate: of speaking; 2 halves every duration.
            batch_units: number of units in a batch, with padding; no row's result depends on its batch.
            speaker: as for `decode`; ignored if the predicted durations do not depend on the speaker.

        Raises ValueError if the model has no duration predictor, units are outside the table, the rate is not
        above 0, or the speaker is unknown.
        """
        voices = None
        if self.generator.durations_need_speaker:
            voices = self._voices(speaker, len(units))
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
        return self._tensor(find(speaker, self.streams, rows))

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def _continuous_f0(self, f0: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
        f0 = np.asarray(f0, np.float32)
        if f0.ndim != 3 or f0.shape[:2] != shape or not np.isfinite(f0).all():
            expected = (*shape, None)
            raise ValueError(f"f0: found shape {f0.shape}, expected finite values, {expected}.")
        return self._tensor(f0)


def length_batches(lengths: Sequence[int], limit: float) -> Iterator[list[int]]:
    """Rows in batches of similar length, each of up to `limit` with padding or of a single row.

    The longest come first, so that what exceeds the memory fails at once.
    """
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
