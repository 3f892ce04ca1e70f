"""A model's pitch stream: from audio to F0 in Hz, and to what the generator takes."""

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
    """What a model takes as pitch.

    Args:
        streams: of the model.
        f0_vqvae: its F0 quantiser, where it has one.

    Attributes:
        exists: whether the model takes pitch at all.
        statistics: F0 of its speakers, None if they are not known.
    """

    def __init__(self, streams: StreamSpec, f0_vqvae: F0Encoder | None):
        self._streams, self._f0_vqvae = streams, f0_vqvae
        self.exists = bool(streams.num_f0_codes or streams.f0_channels)
        self.statistics = None
        if streams.speaker_statistics:
            self.statistics = SpeakerStatistics.from_dict(streams.speaker_statistics)

    @functools.cached_property
    def representation(self) -> F0Representation:
        """How F0 in Hz becomes the model's pitch.

        Raises:
            ValueError: its quantiser is missing.
        """
        streams = self._streams
        return make_representation(streams.f0_codes, self._f0_vqvae, streams.f0_channels)

    def extract(self, wav: np.ndarray) -> np.ndarray:
        """Returns (N,) Hz of (T,) samples, as the model's training data had it."""
        return extract_f0(wav, self._streams.f0_codes.get("f0_method", "yaapt"))

    def entry(self, f0: np.ndarray, speaker: str | None) -> F0Entry:
        """Returns a known speaker's F0 statistics, else those of (N,) Hz, or of all if none is voiced."""
        if isinstance(speaker, str) and self.statistics is not None:
            return self.statistics.entry(speaker)
        if f0.any():
            return SpeakerStatistics.from_frames([("", f0)]).overall
        return self.statistics.overall if self.statistics else {"f0_mean": 1.0, "f0_std": 1.0}

    def voice_entry(self, speaker: object) -> F0Entry:
        """Returns the F0 statistics of a speaker's name or index, else, of a vector too, those of all.

        Raises:
            ValueError: the model has no F0 statistics.
        """
        if self.statistics is None:
            raise ValueError(
                "the bundle has no F0 statistics: speakers.json was not there in training"
            )
        names = self._streams.speakers
        if isinstance(speaker, int) and 0 <= speaker < len(names):
            speaker = names[speaker]
        known = isinstance(speaker, str) and speaker in self.statistics.speakers
        return self.statistics.entry(speaker if known else None)

    def encode(self, f0: np.ndarray, entry: F0Entry, num_units: int) -> dict[str, Any]:
        """Turns F0 into `f0_codes` (F,) or `f0` (C, N), as long as the units.

        Args:
            f0: (n,) Hz at 200 Hz, 0 = unvoiced.
            entry: F0 statistics that normalise it.
            num_units: that it goes with.
        """
        samples = num_units * self._streams.unit_hop
        f0 = np.pad(f0, (0, max(-(-samples // F0_HOP) - len(f0), 0)))
        values = self.representation.encode(f0, entry)
        if self._streams.f0_channels:
            return {"f0": values[:, : -(-samples // F0_HOP)]}
        return {"f0_codes": values[: -(-samples // self._streams.f0_code_hop)]}
