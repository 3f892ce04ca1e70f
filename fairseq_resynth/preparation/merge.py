"""Joining what `--shard` left in a data folder: what `resynth merge` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.speaker_vectors import DESCRIPTION
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import (
    find_parts,
    find_whole,
    join_parts,
    missing_parts,
    part_states,
    remove_parts,
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
    for target, count in {**find_parts(data), **find_parts(data / "f0")}.items():
        name, states = target.relative_to(data).as_posix(), part_states(target, count)
        # By a run that was killed before it removed all of them.
        if _are_joined(data, name, states):
            remove_parts(target, count, next(iter(states.values()), {"key": None})["key"])
            joined.append(name)
        elif missing := missing_parts(target, count):
            waiting[name] = [f"{index}/{count}" for index in missing]
        else:
            # What follows from the file is removed first, so that the run after a killed one writes it.
            if name == "f0/train.npy":
                (data / "speakers.json").unlink(missing_ok=True)
            if name.endswith(".speaker_vectors.npy"):
                (data / DESCRIPTION).unlink(missing_ok=True)
            if join_parts(Record(data), name, count):
                joined.append(name)
    if (data / "f0/train.npy").is_file() and not (data / "speakers.json").is_file():
        write_speaker_statistics(data, [path.stem for path in data.glob("*.tsv")])
        joined.append("speakers.json")
    described = sorted(data.glob("*.speaker_vectors.json"))
    if described and not (data / DESCRIPTION).is_file():
        encoder = {name: value for name, value in read_json(described[0]).items() if name != "rows"}
        update_speaker_means(data, encoder)
        joined.append(DESCRIPTION)
    return joined, waiting


def _are_joined(data: Path, name: str, states: Mapping[Path, Mapping[str, Any]]) -> bool:
    """Whether the file exists that these parts give, or any, if the descriptions of all parts have been
    removed. Raises ValueError if a part is of other rows."""
    record, whole = Record(data), False
    if not states:
        return bool(record.facts(name))
    for part, state in states.items():
        manifest, key = read_manifest(data / state["manifest"]), state["key"]
        if key.get("rows") != manifest.rows_hash():
            raise ValueError(
                f"{part} was made from another {state['manifest']} than the present one. Run that shard "
                "again, or delete the part."
            )
        whole = whole or any(find_whole(record, name, manifest, key, of) for of in (True, False))
    return whole
