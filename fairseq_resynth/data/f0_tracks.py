"""Continuous F0 of utterances, as a generator takes it."""

from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.data.f0 import F0_HOP, F0Cache
from fairseq_resynth.data.f0_representation import make_representation
from fairseq_resynth.data.manifest import Manifest, read_names
from fairseq_resynth.data.speakers import SpeakerStatistics
from fairseq_resynth.data.streams import Streams


class F0Tracks:
    """Rows of normalised F0 at 200 Hz, from the cache of `resynth f0`.

    Args:
        data: the data directory.
        split: whose rows.
        streams: with the speakers' F0 statistics.
        manifest: of the split.

    Raises:
        FileNotFoundError, ValueError: no F0, or made from another manifest.
    """

    def __init__(self, data: Path, split: str, streams: Streams, manifest: Manifest):
        self.cache = F0Cache(data, split, manifest)
        self.names = read_names(data / f"{split}.speaker", len(manifest))
        self.statistics = SpeakerStatistics.from_dict(streams.speaker_statistics)
        self.representation = make_representation(streams.f0_codes, None, streams.f0_channels)

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns (C, N) float32.

        Raises:
            ValueError: a speaker without F0 statistics.
        """
        entry = self.statistics.entry(self.names[row])
        return self.representation.encode(self.cache[row], entry)

    def crop(self, row: int, start: int, length: int) -> torch.Tensor:
        """Returns the (C, ceil(length / 80)) frames of samples start … start + length, 0 behind the end."""
        values = self[row][:, start // F0_HOP :][:, : -(-length // F0_HOP)]
        missing = -(-length // F0_HOP) - values.shape[1]
        return torch.from_numpy(np.pad(values, ((0, 0), (0, missing))))
