"""Speaker vectors of a data folder, which `preparation.speakers` writes.

`{split}.speaker_vectors.npy` has one vector of length 1 per manifest row, computed from the whole
utterance; `speaker_vectors.json` has the mean vector of each speaker.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fairseq_resynth.data.storage.files import map_array

DESCRIPTION = "speaker_vectors.json"


def vectors_path(data: str | Path, split: str) -> Path:
    """The path of a split's vectors."""
    return Path(data) / f"{split}.speaker_vectors.npy"


def format_vector(vector: np.ndarray) -> str:
    """Formats (D,) numbers as one string, so that a speaker is one line of JSON."""
    return " ".join(f"{value:.6g}" for value in vector)


def parse_vectors(means: Mapping[str, str], dim: int) -> dict[str, np.ndarray]:
    """{name: (D,) float32} of `format_vector`. Raises ValueError unless they are `dim` finite numbers."""
    vectors = {}
    for name, text in means.items():
        try:
            vector = np.array(text.split(), dtype=np.float32)
        except (AttributeError, ValueError) as error:
            raise ValueError(f"the vector of {name!r} is not a line of numbers: {error}") from error
        if len(vector) != dim or not np.isfinite(vector).all():
            raise ValueError(f"the vector of {name!r} has {len(vector)} numbers, expected {dim}")
        vectors[name] = vector
    return vectors


def mean_vector(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """The (D,) float32 mean scaled to length 1. Raises ValueError if it is 0 or there are no vectors."""
    vectors = list(vectors)
    mean = np.mean(vectors, axis=0) if vectors else np.zeros(1)
    length = float(np.linalg.norm(mean))
    if not length > 1e-6:
        raise ValueError("there are no speaker vectors to take the mean of, or their mean is 0")
    return (mean / length).astype(np.float32)


def read_vectors(data: str | Path, split: str, rows: int) -> np.ndarray:
    """Maps the vectors of a split, (rows, D) float32; rows without a vector of their own are NaN. Raises
    FileNotFoundError if the file does not exist, ValueError if it is truncated or has other rows."""
    path = vectors_path(data, split)
    command = f"Make it with `resynth speakers {data}`."
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {command}")
    vectors = map_array(path, command)
    if vectors.ndim != 2 or len(vectors) != rows or vectors.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {vectors.shape} {vectors.dtype}, its manifest {rows} rows. {command}"
        )
    return vectors
