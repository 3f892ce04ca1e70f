"""Speaker vectors of every utterance and the mean of each speaker: what `resynth speakers` does."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.manifest import read_manifest, read_names
from fairseq_resynth.data.speaker_vectors import (
    DESCRIPTION,
    format_vector,
    mean_vector,
    read_vectors,
    vectors_path,
)
from fairseq_resynth.data.storage.files import read_object, write_json
from fairseq_resynth.data.storage.parts import ArrayPart, Item, RowsOutcome
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import Shard


def build_speaker_vectors(
    data: str | Path,
    split: str,
    description: dict[str, Any],
    embed: Callable[[Path], np.ndarray | str],
    shard: Shard | None = None,
    workers: int = 1,
    accept_mean: bool = False,
) -> RowsOutcome:
    """Fills the vectors of a split, or of this shard's rows. `embed`, which can be pickled, gives a file's
    vector, or the reason why it has none. `description` has `encoder`, `encoder_hash` and `speaker_dim`. With
    `accept_mean`, rows that fail are NaN in the file, and readers give them the mean of their speaker."""
    manifest, target = read_manifest(Path(data) / f"{split}.tsv"), vectors_path(data, split)
    dim, described = description["speaker_dim"], {"rows": manifest.rows_hash(), **description}
    part = ArrayPart(
        np.full(len(manifest), dim), (len(manifest), dim), Record(data), target.name, manifest,
        shard or Shard(), description, {f"{target.stem}.json": described},
    )  # fmt: skip
    if (outcome := part.finished()) is not None:
        return outcome
    make, substitute = partial(_embed_row, embed=embed), np.nan if accept_mean else None
    with part:
        return part.fill(make, workers, f"speakers {split}", substitute)


def _embed_row(item: Item, embed: Callable[[Path], np.ndarray | str]) -> np.ndarray | str:
    return embed(item.path)


def write_speaker_means(
    data: str | Path, splits: Iterable[str], description: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Writes `speaker_vectors.json`: each speaker's mean over train, or over the first split that has it. The
    `splits` all have vectors of the encoder in `description`. Returns {name: (D,) float32 of length 1}.
    Raises ValueError if a speaker has no vector at all."""
    data, means = Path(data), {}
    for split in sorted(splits, key=lambda split: (split != "train", split)):
        manifest = read_manifest(data / f"{split}.tsv")
        path = vectors_path(data, split).with_suffix(".json")
        found = read_object(path, "Make it with `resynth speakers`.")
        if any(found.get(name) != value for name, value in description.items()):
            raise ValueError(
                f"{path}: made by {found.get('encoder')} {found.get('encoder_hash')}, expected "
                f"{description['encoder']} {description['encoder_hash']} as the other splits: run "
                "`resynth speakers` without --split."
            )
        names = read_names(data / f"{split}.speaker", len(manifest))
        vectors, grouped = read_vectors(data, split, len(manifest)), names.grouped()
        for name in sorted(set(names.table) - set(means)):
            own = [vectors[row] for row in grouped[name] if np.isfinite(vectors[row]).all()]
            if not own:
                raise ValueError(f"{data / split}.speaker: no utterance of {name!r} has a voice.")
            means[name] = mean_vector(own)
    texts = {name: format_vector(vector) for name, vector in sorted(means.items())}
    write_json(data / DESCRIPTION, {**description, "means": texts})
    return means


def update_speaker_means(data: str | Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    """Writes `speaker_vectors.json` from all splits that have vectors, as `write_speaker_means` does."""

    def splits() -> set[str]:
        names = {path.stem for path in Path(data).glob("*.tsv")}
        return {name for name in names if vectors_path(data, name).is_file()}

    means, written = {}, None
    # Another process may finish a split meanwhile and write the file before this one does.
    while (found := splits()) != written:
        means, written = write_speaker_means(data, found, description), found
    return means
