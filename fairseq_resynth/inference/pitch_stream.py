"""The pitch stream of a model: from audio to F0 in Hz, and on to codes or normalized F0."""

import functools
from typing import Any

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.data.pitch.representations import (
    F0Encoder,
    F0Representation,
    make_representation,
)
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.streams import StreamSpec


class PitchStream:
    """Extracts F0 and turns it into the pitch stream of a model, with its F0 quantizer if it has one.

    Attributes:
        exists: whether the model has a pitch stream.
        statistics: F0 statistics of its speakers; None if they are unknown.
    """

    def __init__(self, streams: StreamSpec, f0_vqvae: F0Encoder | None):
        self._streams, self._f0_vqvae = streams, f0_vqvae
        self.exists = streams.has_pitch
        self.statistics = None
        if streams.speaker_statistics:
            self.statistics = SpeakerStatistics.from_dict(streams.speaker_statistics)

    @functools.cached_property
    def representation(self) -> F0Representation:
        """The conversion of F0 in Hz to the model's pitch stream; raises ValueError without its quantizer."""
        streams = self._streams
        return make_representation(streams.f0_codes, self._f0_vqvae, streams.f0_channels)

    def extract(self, wav: np.ndarray) -> np.ndarray:
        """The (N,) F0 in Hz of (T,) samples, by the method that made the training data."""
        return extract_f0(wav, self._streams.f0_codes.get("f0_method", "yaapt"))

    def entry(self, f0: np.ndarray, speaker: str | None) -> F0Entry:
        """The F0 statistics of a known speaker, else of (N,) Hz, or of all speakers if no frame is voiced."""
        if isinstance(speaker, str) and self.statistics is not None:
            return self.statistics.entry(speaker)
        if f0.any():
            return SpeakerStatistics.from_frames([("", f0)]).overall
        return self.statistics.overall if self.statistics else {"f0_mean": 1.0, "f0_std": 1.0}

    def voice_entry(self, speaker: object) -> F0Entry:
        """The F0 statistics of a speaker by name or index; of all speakers for anyone else, or a vector.

        Raises ValueError if the model has no F0 statistics.
        """
        if self.statistics is None:
            raise ValueError(
                "the bundle has no F0 statistics, because speakers.json did not exist in training"
            )
        names = self._streams.speakers
        if isinstance(speaker, int) and 0 <= speaker < len(names):
            speaker = names[speaker]
        known = isinstance(speaker, str) and speaker in self.statistics.speakers
        return self.statistics.entry(speaker if known else None)

    def encode(self, f0: np.ndarray, entry: F0Entry, num_units: int) -> dict[str, Any]:
        """Turns (n,) Hz at 200 Hz into {`f0_codes`: (F,)} or {`f0`: (C, N)}, as long as the units."""
        samples = num_units * self._streams.unit_hop
        f0 = np.pad(f0, (0, max(-(-samples // F0_HOP) - len(f0), 0)))
        values = self.representation.encode(f0, entry)
        if self._streams.f0_channels:
            return {"f0": values[:, : -(-samples // F0_HOP)]}
        return {"f0_codes": values[: -(-samples // self._streams.f0_code_hop)]}
