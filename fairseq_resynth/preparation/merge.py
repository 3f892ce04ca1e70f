"""Joining what `--shard` left in a data folder: what `resynth merge` does."""

from pathlib import Path
from typing import Any

from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import (
    find_parts,
    join_parts,
    missing_parts,
    part_states,
    rows_hash,
)
from fairseq_resynth.preparation.f0 import write_speaker_statistics
from fairseq_resynth.preparation.speakers import update_speaker_means


def merge(data_dir: str | Path) -> tuple[list[str], dict[str, list[str]]]:
    """Joins all parts in a data folder and its `f0/`, and writes the descriptions of speakers that follow.
    Returns (files that were joined, those that lack parts with the shards, I/N). Raises ValueError if parts
    belong to another manifest, or to runs with different options or N."""
    data = Path(data_dir)
    if not data.is_dir():
        raise NotADirectoryError(f"{data} is not a folder")
    joined, waiting = [], {}
    encoder: dict[str, Any] = {}  # of the speaker vectors that were joined
    for target, count in {**find_parts(data), **find_parts(data / "f0")}.items():
        states = part_states(target, count)
        for part, state in states.items():
            if state["key"]["rows"] != rows_hash(read_manifest(data / state["manifest"])):
                raise ValueError(
                    f"{part} was made from another {state['manifest']} than the present one. Run that shard "
                    "again, or delete the part."
                )
        name = target.relative_to(data).as_posix()
        if missing := missing_parts(target, count):
            waiting[name] = [f"{index}/{count}" for index in missing]
        elif join_parts(Record(data), name, count):
            joined.append(name)
            if name.endswith(".speaker_vectors.npy"):
                encoder = next(iter(states.values()))["settings"]
    if "f0/train.npy" in joined:
        write_speaker_statistics(data, [path.stem for path in data.glob("*.tsv")])
        joined.append("speakers.json")
    if encoder:
        update_speaker_means(data, encoder)
        joined.append("speaker_vectors.json")
    return joined, waiting
