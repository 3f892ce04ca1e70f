"""Speakers by name, index or vector, as the rows and vectors that a generator takes."""

from collections.abc import Sequence

import numpy as np

from fairseq_resynth.data.speaker_vectors import parse_vectors
from fairseq_resynth.data.storage.messages import first_names
from fairseq_resynth.data.streams import StreamSpec

Speaker = str | int | np.ndarray | Sequence[str | int | np.ndarray]


def speaker_names(streams: StreamSpec) -> str:
    """The names of the first twenty speakers of a model, for messages."""
    return first_names(streams.speakers) or "none"


def speaker_indices(speaker: Speaker | None, streams: StreamSpec, rows: int) -> np.ndarray:
    """The (rows,) int64 indices into the table of speakers; None is allowed for a model with one speaker.
    Raises ValueError for no speaker, an unknown one, or not one per row."""
    if speaker is None or isinstance(speaker, str | int | np.integer):
        names = [speaker] * rows
    else:
        names = list(np.atleast_2d(speaker) if _is_vector(speaker) else speaker)
    if len(names) != rows:
        raise ValueError(f"found {len(names)} speakers for {rows} rows.")
    return np.array([_index(name, streams) for name in names], dtype=np.int64)


def _is_vector(speaker: object) -> bool:
    return isinstance(speaker, np.ndarray) and np.issubdtype(speaker.dtype, np.floating)


def _index(name: str | int | np.ndarray | None, streams: StreamSpec) -> int:
    if isinstance(name, str):
        return streams.speaker_index(name)
    if name is None and len(streams.speakers) == 1:
        return 0
    if _is_vector(name):
        raise ValueError(
            "a speaker vector was given, and the model has a table of speakers: "
            f"{speaker_names(streams)}. Make a bundle on vectors with `resynth export … --speaker-vectors`."
        )
    if name is None:
        raise ValueError(f"give a speaker; the model has {speaker_names(streams)}: --target NAME.")
    if not 0 <= int(name) < len(streams.speakers):
        raise ValueError(f"speaker {name!r}: the model has {speaker_names(streams)}.")
    return int(name)


def speaker_vectors(speaker: Speaker | None, streams: StreamSpec, rows: int) -> np.ndarray:
    """The (rows, D) float32 vectors, for a model on speaker vectors. `speaker` is (D,) or (rows, D), a name
    or index of a known speaker, or a list of any of these. Raises ValueError for no speaker, an unknown one,
    not one per row, or vectors of other dimensions."""
    dim = streams.speaker_dim
    if speaker is None and len(streams.speakers) != 1:
        raise ValueError(
            f"give a speaker: a vector of {dim} numbers, or one of {speaker_names(streams)}."
        )
    if speaker is None or isinstance(speaker, str | int | np.integer):
        speaker = [speaker]
    if isinstance(speaker, np.ndarray):
        vectors = np.atleast_2d(speaker)
    else:
        vectors = [v if isinstance(v, np.ndarray) else _known_vector(v, streams) for v in speaker]
        if len({vector.shape for vector in vectors}) > 1:
            raise ValueError(f"found speaker vectors of several sizes, expected ({dim},).")
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim or len(vectors) not in (1, rows):
        raise ValueError(f"speaker: found shape {vectors.shape}, expected {(rows, dim)}.")
    if not np.isfinite(vectors).all():
        raise ValueError("speaker: the vector contains NaN or infinity.")
    return np.repeat(vectors, rows // len(vectors), axis=0)


def _known_vector(name: str | int | None, streams: StreamSpec) -> np.ndarray:
    known = streams.speakers[_index(name, streams)]
    means = streams.speaker_vectors.get("means", {})
    if known not in means:
        raise ValueError(f"the model has no vector of {known!r}: give one.")
    return parse_vectors({known: means[known]}, streams.speaker_dim)[known]
