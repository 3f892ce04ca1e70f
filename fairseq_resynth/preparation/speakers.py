"""Filling the speaker vectors of a data folder: what `resynth speakers` does.

A part is its rows as raw float32, allocated at once and full of NaN. A row is done when it holds numbers, so
an interrupted run continues.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.manifest import Manifest, read_manifest, read_names
from fairseq_resynth.data.speaker_vectors import (
    DESCRIPTION,
    format_vector,
    mean_vector,
    read_vectors,
    vectors_path,
)
from fairseq_resynth.data.storage.files import array_header, read_json, write_json
from fairseq_resynth.data.storage.shards import Shard, close_part, join_parts, open_part, rows_hash
from fairseq_resynth.data.storage.workers import parallel_map, progress


@dataclass
class VectorOutcome:
    """What became of a split.

    Attributes:
        rows: rows of this shard.
        reused: of them, rows that an earlier run had left.
        failed: path and reason of each row without a vector of its own.
        joined: whether `{split}.speaker_vectors.npy` is there.
    """

    rows: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    joined: bool = False


def build_speaker_vectors(
    data: str | Path,
    split: str,
    description: dict[str, Any],
    embed: Callable[[Path], np.ndarray | str],
    shard: Shard | None = None,
    workers: int = 1,
    accept_mean: bool = False,
) -> VectorOutcome:
    """Fills the vectors of a split, or of this shard's rows.

    Args:
        data: the data folder.
        split: `train`, `valid`, …
        description: `encoder`, `encoder_hash` and `speaker_dim`.
        embed: gives a file's vector, or the reason why there is none; can be pickled.
        shard: which rows.
        workers: processes.
        accept_mean: rows that fail stay NaN in the file, and take their speaker's mean.

    Raises:
        FileNotFoundError, ValueError: no usable manifest.
    """
    shard = shard or Shard()
    manifest, target = read_manifest(Path(data) / f"{split}.tsv"), vectors_path(data, split)
    key, rows = {"rows": rows_hash(manifest), **description}, shard.rows(len(manifest))
    described = target.with_suffix(".json")
    if target.is_file() and described.is_file() and read_json(described) == key:
        return VectorOutcome(len(rows), len(rows), joined=True)
    part = open_part(target, shard, key)
    outcome = _fill(part, manifest, rows, description["speaker_dim"], embed, workers, split)
    if not outcome.failed or accept_mean:
        close_part(target, shard, key, {described.name: key})
        header = array_header((len(manifest), description["speaker_dim"]), "<f4")
        outcome.joined = join_parts(target, shard.count, key, header)
    return outcome


def _fill(
    part: Path, manifest: Manifest, rows: range, dim: int, embed, workers: int, split: str
) -> VectorOutcome:
    outcome = VectorOutcome(len(rows))
    if not rows:
        return outcome
    if part.stat().st_size != len(rows) * dim * 4:
        np.full((len(rows), dim), np.nan, np.float32).tofile(part)
    vectors = np.memmap(part, np.float32, "r+", shape=(len(rows), dim))
    todo = [row for row in rows if np.isnan(vectors[row - rows.start]).any()]
    outcome.reused = len(rows) - len(todo)
    paths = {manifest.path(row): row for row in todo}
    results = parallel_map(embed, paths, workers)
    for path, found in progress(results, len(rows), f"speakers {split}", outcome.reused):
        if isinstance(found, str):
            outcome.failed[manifest.paths[paths[path]]] = found
        else:
            vectors[paths[path] - rows.start] = found
    vectors.flush()
    outcome.failed = dict(sorted(outcome.failed.items()))
    return outcome


def _check_same_encoder(path: Path, description: dict[str, Any]) -> None:
    found = read_json(path, "Make it with `resynth speakers`.")
    if any(found.get(name) != value for name, value in description.items()):
        raise ValueError(
            f"{path}: made by {found.get('encoder')} {found.get('encoder_hash')}, expected "
            f"{description['encoder']} {description['encoder_hash']} as the other splits: run "
            "`resynth speakers` without --split."
        )


def write_speaker_means(
    data: str | Path, splits: Iterable[str], description: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Writes `speaker_vectors.json`: each speaker's mean over train, or over the first split it is in.

    Args:
        data: the data folder.
        splits: whose vectors are there.
        description: of the encoder.

    Returns:
        {name: (D,) float32 of length 1}.

    Raises:
        ValueError: a speaker without any vector.
    """
    data, means = Path(data), {}
    for split in sorted(splits, key=lambda split: (split != "train", split)):
        manifest = read_manifest(data / f"{split}.tsv")
        _check_same_encoder(vectors_path(data, split).with_suffix(".json"), description)
        names = read_names(data / f"{split}.speaker", len(manifest))
        vectors, grouped = read_vectors(data, split, len(manifest)), names.grouped()
        for name in sorted(set(names.table) - set(means)):
            own = [vectors[row] for row in grouped[name]]
            own = [vector for vector in own if np.isfinite(vector).all()]
            if not own:
                raise ValueError(f"{data / split}.speaker: no utterance of {name!r} has a voice.")
            means[name] = mean_vector(own)
    texts = {name: format_vector(vector) for name, vector in sorted(means.items())}
    write_json(data / DESCRIPTION, {**description, "means": texts})
    return means
