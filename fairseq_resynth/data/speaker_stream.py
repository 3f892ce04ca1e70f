"""Who speaks, row by row: rows of a table of speakers, or vectors."""

from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.data.manifest import read_names
from fairseq_resynth.data.speaker_vectors import parse_vectors, read_vectors
from fairseq_resynth.data.streams import Streams


def known_rows(path: Path, rows: int, known: tuple[str, ...], what: str) -> np.ndarray:
    """Reads `{split}.speaker` or `{split}.style` as (rows,) int32 indices into the known names.

    Raises:
        ValueError: a name that was not trained on, with its line.
    """
    names, place = read_names(path, rows), {name: row for row, name in enumerate(known)}
    for name in set(names.table) - set(known):
        raise ValueError(
            f"{path}:{names.index(name) + 1}: {what} {name!r} was not trained on; "
            f"known are {', '.join(known[:20])}."
        )
    return np.array([place[name] for name in names.table], dtype=np.int32)[names.rows]


class SpeakerTable:
    """Rows of the table of speakers.

    Args:
        data: the data directory.
        split: whose rows.
        streams: with the names of the table.
        rows: of the manifest.

    Raises:
        FileNotFoundError, ValueError: no `{split}.speaker`, or a name that is not in the table.
    """

    def __init__(self, data: Path, split: str, streams: Streams, rows: int):
        self.names = streams.speakers
        self.indices = known_rows(data / f"{split}.speaker", rows, self.names, "speaker")

    def tensor(self, row: int, epoch: int = 0) -> torch.Tensor:
        """Returns () int64."""
        return torch.tensor(int(self.indices[row]))

    def voice(self, row: int) -> str:
        """Returns the speaker's name."""
        return self.names[self.indices[row]]


class SpeakerVectors:
    """Vectors: in training, of the utterance or, drawn anew each epoch, the mean of its speaker.

    A generator trained on both speaks with either. Outside of training a known speaker's rows have the mean,
    and another's their own vector.

    Args:
        data: the data directory.
        split: whose rows.
        streams: with the means of the speakers.
        rows: of the manifest.
        mean_rate: how often the mean is drawn, 0 to 1; None: not training.
        seed: of the draw.

    Raises:
        FileNotFoundError, ValueError: no vectors, or of other dimensions.
    """

    def __init__(
        self,
        data: Path,
        split: str,
        streams: Streams,
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
        """Returns (D,) float32; the draw depends on seed, epoch and row alone.

        Raises:
            ValueError: neither a vector nor a mean.
        """
        own, name = np.array(self.vectors[row]), self.names[row]
        if np.isnan(own).any() and name not in self.means:
            raise ValueError(f"row {row + 1}: no vector of its own, and {name!r} has no mean.")
        use_mean = name in self.means
        if self.mean_rate is not None and use_mean and not np.isnan(own).any():
            # 1 keeps this draw apart from the crop's
            draw = np.random.default_rng((self.seed, epoch, row, 1)).random()
            use_mean = draw < self.mean_rate
        return torch.from_numpy(self.means[name].copy() if use_mean else own)

    def voice(self, row: int) -> str | np.ndarray:
        """Returns a known speaker's name, else the utterance's vector."""
        name = self.names[row]
        return name if name in self.means else np.array(self.vectors[row])
