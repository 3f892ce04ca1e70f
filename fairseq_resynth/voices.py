"""Names, indices and vectors of speakers and styles to what a generator takes."""

from collections.abc import Sequence

import numpy as np

from fairseq_resynth.data.speaker_vectors import parse_vectors
from fairseq_resynth.data.streams import Streams

Speaker = str | int | Sequence[str | int] | np.ndarray


def known_voices(streams: Streams) -> str:
    """Returns the names of a model's speakers for a message, the first twenty."""
    names = ", ".join(streams.speakers[:20]) + (" …" if len(streams.speakers) > 20 else "")
    return names or "none"


def speaker_indices(speaker: Speaker | None, streams: Streams, rows: int) -> np.ndarray:
    """Returns the (rows,) int64 rows of the table; a model with one speaker needs none given.

    Raises:
        ValueError: no speaker, an unknown one, or not one a row.
    """
    if speaker is None and len(streams.speakers) == 1:
        speaker = 0
    if speaker is None:
        raise ValueError(
            f"give a speaker; the model has {', '.join(streams.speakers)}: --speaker NAME."
        )
    names = [speaker] * rows if isinstance(speaker, str | int | np.integer) else list(speaker)
    if len(names) != rows:
        raise ValueError(f"found {len(names)} speakers for {rows} rows.")
    return np.array([_index(name, streams) for name in names], dtype=np.int64)


def _index(name: str | int | None, streams: Streams) -> int:
    if isinstance(name, str):
        return streams.speaker_index(name)
    if name is None and len(streams.speakers) == 1:
        return 0
    if isinstance(name, np.ndarray) and name.ndim:
        raise ValueError(
            "a speaker vector was given, and the model has a table of speakers: "
            f"{known_voices(streams)}. Make a bundle on vectors with `resynth export … --speaker-vectors`."
        )
    if name is None:
        raise ValueError(f"give a speaker; the model has {known_voices(streams)}: --speaker NAME.")
    if not 0 <= int(name) < len(streams.speakers):
        raise ValueError(f"speaker {name!r}: the model has {known_voices(streams)}.")
    return int(name)


def speaker_vectors(speaker: Speaker | None, streams: Streams, rows: int) -> np.ndarray:
    """Returns (rows, D) float32, for a model on vectors.

    Args:
        speaker: (D,) or (rows, D), or a name or index of a known speaker, or a list of any of these.
        streams: of the model.
        rows: of the batch.

    Raises:
        ValueError: no speaker, an unknown one, not one a row, or of other dimensions.
    """
    dim = streams.speaker_dim
    if speaker is None and len(streams.speakers) != 1:
        raise ValueError(
            f"give a speaker: a vector of {dim} numbers, or one of {known_voices(streams)}."
        )
    if speaker is None or isinstance(speaker, str | int | np.integer):
        vectors = _known_vector(speaker, streams)[None]
    elif isinstance(speaker, np.ndarray):
        vectors = np.atleast_2d(speaker)
    else:
        vectors = [
            np.asarray(one) if isinstance(one, np.ndarray) else _known_vector(one, streams)
            for one in speaker
        ]
        if len({vector.shape for vector in vectors}) > 1:
            raise ValueError(f"found speaker vectors of several sizes, expected ({dim},).")
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim or len(vectors) not in (1, rows):
        raise ValueError(f"speaker: found shape {vectors.shape}, expected {(rows, dim)}.")
    if not np.isfinite(vectors).all():
        raise ValueError("speaker: the vector has NaN or infinity in it.")
    return np.repeat(vectors, rows // len(vectors), axis=0)


def _known_vector(name: str | int | None, streams: Streams) -> np.ndarray:
    known = streams.speakers[_index(name, streams)]
    means = streams.speaker_vectors.get("means", {})
    if known not in means:
        raise ValueError(f"the model knows no vector of {known!r}: give one.")
    return parse_vectors({known: means[known]}, streams.speaker_dim)[known]


def style_indices(style: str | Sequence[str] | None, streams: Streams, rows: int) -> np.ndarray:
    """Returns the (rows,) int64 rows of the table of styles; a model with one needs none given.

    Raises:
        ValueError: an unknown style, or none.
    """
    names = list(streams.styles)
    wanted = [style] * rows if style is None or isinstance(style, str) else list(style)
    if len(names) == 1:
        wanted = [name or names[0] for name in wanted]
    for name in wanted:
        if name not in names:
            raise ValueError(f"style {name!r}: the model has {', '.join(names) or 'none'}.")
    return np.array([names.index(name) for name in wanted], dtype=np.int64)
