"""Streams to speech: the half of the system that needs no encoder."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fairseq_resynth.data.streams import Streams
from fairseq_resynth.modules.unit_generator import UnitGenerator

Speaker = str | int | Sequence[str | int] | np.ndarray


@dataclass(frozen=True)
class EncodedSpeech:
    """One utterance as streams.

    Attributes:
        units: (U,) int64 content units.
        f0_codes: (F,) int64 pitch codes, None for a model without pitch.
        speaker: name of who speaks, None when unknown.
        num_samples: of the recording.
    """

    units: np.ndarray
    f0_codes: np.ndarray | None = None
    speaker: str | None = None
    num_samples: int = 0


class UnitDecoder:
    """Runs a unit vocoder on checked streams.

    Args:
        generator: the unit vocoder; its weight norm is folded away.
        streams: what it was trained on.
        device: where to compute.
    """

    def __init__(
        self, generator: UnitGenerator, streams: Streams, device: str | torch.device = "cpu"
    ):
        self.streams = streams
        self.device = torch.device(device)
        self.generator = generator.eval().to(self.device)
        self.generator.generator.remove_weight_norm()

    @torch.inference_mode()
    def decode(
        self,
        units: np.ndarray,
        f0_codes: np.ndarray | None = None,
        speaker: Speaker | None = None,
        unit_lengths: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Turns streams into speech.

        Args:
            units: (B, U) integers.
            f0_codes: (B, F) integers, F >= U * unit_hop / f0_code_hop, for a model with pitch.
            speaker: a name or index, or one a row; needed when the model has several.
            unit_lengths: units of each row of a padded batch; None: no padding.

        Returns:
            (B, 1, U * unit_hop) float32, 0 behind a row's end.

        Raises:
            ValueError: values outside the tables, a stream missing or too short, an unknown speaker.
        """
        units = self._integers("units", units, self.streams.num_units)
        inputs = {"units": units}
        if f0_codes is not None:
            inputs["f0_codes"] = self._integers("f0_codes", f0_codes, self.streams.num_f0_codes)
        if self.streams.speakers or speaker is not None:
            inputs["speaker"] = self._speakers(speaker, len(units))
        if unit_lengths is not None:
            inputs["unit_lengths"] = torch.as_tensor(list(unit_lengths), device=self.device)
        return self.generator(**inputs).float().cpu().numpy()

    def decode_all(
        self, utterances: Sequence[EncodedSpeech], batch_seconds: float = 60.0
    ) -> list[np.ndarray]:
        """Turns utterances into speech, in batches of similar length: each is as it would be alone.

        Args:
            utterances: each with its speaker.
            batch_seconds: of audio in a batch, padding included.

        Returns:
            (T,) float32 for each utterance, in the order given.
        """
        limit = batch_seconds * self.streams.sample_rate / self.streams.unit_hop
        order = sorted(range(len(utterances)), key=lambda row: len(utterances[row].units))
        wavs: list[np.ndarray] = [np.zeros(0, np.float32)] * len(utterances)
        while order:
            longest = max(1, len(utterances[order[-1]].units))
            count = max(1, int(limit // longest))
            batch, order = order[-count:], order[:-count]
            for row, wav in zip(
                batch, self._decode_batch([utterances[r] for r in batch]), strict=True
            ):
                wavs[row] = wav
        return wavs

    def _decode_batch(self, utterances: list[EncodedSpeech]) -> list[np.ndarray]:
        lengths = [len(utterance.units) for utterance in utterances]
        f0_codes = None
        if self.streams.num_f0_codes:
            f0_codes = _pad([utterance.f0_codes for utterance in utterances])
        speakers = [u.speaker for u in utterances] if self.streams.speakers else None
        wavs = self.decode(
            _pad([utterance.units for utterance in utterances]),
            f0_codes,
            speakers,
            lengths if min(lengths) != max(lengths) else None,
        )
        hop = self.streams.unit_hop
        return [wav[0, : length * hop] for wav, length in zip(wavs, lengths, strict=True)]

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

    def _speakers(self, speaker: Speaker | None, rows: int) -> torch.Tensor:
        if speaker is None and len(self.streams.speakers) == 1:
            speaker = 0
        if speaker is None:
            raise ValueError(f"give a speaker; the model has {', '.join(self.streams.speakers)}.")
        names = [speaker] * rows if isinstance(speaker, str | int | np.integer) else list(speaker)
        if len(names) != rows:
            raise ValueError(f"found {len(names)} speakers for {rows} rows.")
        return torch.tensor([self._speaker(name) for name in names], device=self.device)

    def _speaker(self, name: str | int | None) -> int:
        if isinstance(name, str):
            return self.streams.speaker_index(name)
        if name is None and len(self.streams.speakers) == 1:
            return 0
        if name is None or not 0 <= int(name) < len(self.streams.speakers):
            raise ValueError(
                f"speaker {name!r}: the model has {', '.join(self.streams.speakers) or 'none'}."
            )
        return int(name)


def _pad(rows: list[np.ndarray]) -> np.ndarray:
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows])
