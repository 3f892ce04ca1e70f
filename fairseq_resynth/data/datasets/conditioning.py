"""Conditioning of each row: the speaker as a row of a table or as a vector, and continuous F0."""

from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.manifest import Manifest, read_names
from fairseq_resynth.data.pitch.extraction import F0Cache
from fairseq_resynth.data.pitch.representations import make_representation
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.speaker_vectors import parse_vectors, read_vectors
from fairseq_resynth.data.storage.messages import first_names
from fairseq_resynth.data.streams import StreamSpec


def known_rows(path: Path, rows: int, known: tuple[str, ...], what: str) -> np.ndarray:
    """Reads `{split}.speaker` or a named token as (rows,) int32 indices into the names known to the model;
    `what` is the stream's name. Raises ValueError if a name was not trained on."""
    names, place = read_names(path, rows), {name: row for row, name in enumerate(known)}
    for name in set(names.table) - set(known):
        raise ValueError(
            f"{path}:{names.index(name) + 1}: {what} {name!r} was not trained on; "
            f"known are {first_names(known)}."
        )
    return np.array([place[name] for name in names.table], dtype=np.int32)[names.rows]


class SpeakerTable:
    """The speaker of each row as an index into the table of speakers; raises as `known_rows` does."""

    def __init__(self, data: Path, split: str, streams: StreamSpec, rows: int):
        self.names = streams.speakers
        self.indices = known_rows(data / f"{split}.speaker", rows, self.names, "speaker")

    def tensor(self, row: int, epoch: int = 0) -> torch.Tensor:
        """The index of the speaker, () int64; `epoch` is ignored."""
        return torch.tensor(int(self.indices[row]))

    def voice(self, row: int) -> str:
        """The name of the speaker."""
        return self.names[self.indices[row]]


class SpeakerVectors:
    """The speaker of each row as a vector.

    In training it is the vector of the utterance or, with probability `mean_rate` in each epoch, the mean
    of its speaker, so that the generator learns to speak with either. Otherwise (`mean_rate` None) it is
    the mean for known speakers and the utterance's own vector for others. Raises FileNotFoundError if the
    split has no vectors, and ValueError if they have other dimensions than the model.
    """

    def __init__(
        self,
        data: Path,
        split: str,
        streams: StreamSpec,
        rows: int,
        mean_rate: float | None = None,
        seed: int = 1,
    ):
        self.names = read_names(data / f"{split}.speaker", rows)
        self.vectors = read_vectors(data, split, rows)
        if self.vectors.shape[1] != streams.speaker_dim:
            raise ValueError(
                f"{data / split}.speaker_vectors.npy has {self.vectors.shape[1]} dimensions, the model "
                f"{streams.speaker_dim}: run `resynth speakers {data}` with the encoder "
                f"{streams.speaker_vectors.get('encoder')}."
            )
        self.means = parse_vectors(streams.speaker_vectors["means"], streams.speaker_dim)
        self.mean_rate, self.seed = mean_rate, seed

    def tensor(self, row: int, epoch: int = 0) -> torch.Tensor:
        """The vector (D,) float32; the random choice depends only on seed, epoch and row. Raises ValueError
        if the row has no vector, and its speaker no mean."""
        own, name = np.array(self.vectors[row]), self.names[row]
        use_mean, has_own = name in self.means, not np.isnan(own).any()
        if not use_mean and not has_own:
            raise ValueError(f"row {row + 1}: no vector of its own, and {name!r} has no mean.")
        if self.mean_rate is not None and use_mean and has_own:
            # The 1 makes this choice independent of the crop's start.
            use_mean = np.random.default_rng((self.seed, epoch, row, 1)).random() < self.mean_rate
        return torch.from_numpy(self.means[name].copy() if use_mean else own)

    def voice(self, row: int) -> str | np.ndarray:
        """The name of a known speaker, or the vector of the utterance."""
        name = self.names[row]
        return name if name in self.means else np.array(self.vectors[row])


class F0Tracks:
    """Normalized F0 of each row at 200 Hz, from the cache of `resynth f0`; raises as `F0Cache` does."""

    def __init__(self, data: Path, split: str, streams: StreamSpec, manifest: Manifest):
        self.cache = F0Cache(data, split, manifest)
        self.names = read_names(data / f"{split}.speaker", len(manifest))
        self.statistics = SpeakerStatistics.from_dict(streams.speaker_statistics)
        self.representation = make_representation(streams.f0_codes, None, streams.f0_channels)

    def __getitem__(self, row: int) -> np.ndarray:
        """The F0 of a row, (C, N) float32. Raises ValueError if the speaker has no F0 statistics."""
        entry = self.statistics.entry(self.names[row])
        return self.representation.encode(self.cache[row], entry)

    def crop(self, row: int, start: int, length: int) -> torch.Tensor:
        """The frames of `length` samples from `start` on, (C, ceil(length / 80)), padded with 0."""
        return _crop(self[row], start, length)


class SourceF0:
    """The F0 that a generator with a pulse source is trained on; raises as `F0Cache` does."""

    def __init__(self, data: Path, split: str, manifest: Manifest):
        self.cache = F0Cache(data, split, manifest)

    def crop(self, row: int, start: int, length: int) -> torch.Tensor:
        """F0 in Hz, interpolated over unvoiced frames, and voicing: (2, ceil(length / 80)) float32."""
        f0 = np.asarray(self.cache[row], np.float32)
        voiced = np.flatnonzero(f0 > 0)
        filled = np.interp(np.arange(len(f0)), voiced, f0[voiced]) if len(voiced) else f0
        return _crop(np.stack([filled, f0 > 0]).astype(np.float32), start, length)


def _crop(values: np.ndarray, start: int, length: int) -> torch.Tensor:
    values = values[:, start // F0_HOP :][:, : -(-length // F0_HOP)]
    missing = -(-length // F0_HOP) - values.shape[1]
    return torch.from_numpy(np.pad(values, ((0, 0), (0, missing))))
