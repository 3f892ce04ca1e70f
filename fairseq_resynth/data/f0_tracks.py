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
        return _crop(self[row], start, length)


class SourceF0:
    """The F0 that a generator with pulses is trained on: without gaps, and the voicing.

    Args:
        data: the data directory.
        split: whose rows.
        manifest: of the split.

    Raises:
        FileNotFoundError, ValueError: no F0, or made from another manifest.
    """

    def __init__(self, data: Path, split: str, manifest: Manifest):
        self.cache = F0Cache(data, split, manifest)

    def crop(self, row: int, start: int, length: int) -> torch.Tensor:
        """Returns (2, ceil(length / 80)) float32: F0 in Hz with straight lines across gaps, and voicing.

        A recording without a voiced frame has 0 Hz.
        """
        f0 = np.asarray(self.cache[row], np.float32)
        voiced = np.flatnonzero(f0 > 0)
        filled = np.interp(np.arange(len(f0)), voiced, f0[voiced]) if len(voiced) else f0
        return _crop(np.stack([filled, f0 > 0]).astype(np.float32), start, length)


def _crop(values: np.ndarray, start: int, length: int) -> torch.Tensor:
    values = values[:, start // F0_HOP :][:, : -(-length // F0_HOP)]
    missing = -(-length // F0_HOP) - values.shape[1]
    return torch.from_numpy(np.pad(values, ((0, 0), (0, missing))))
