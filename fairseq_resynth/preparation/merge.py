"""Joining what `--shard` left in a data folder: what `resynth merge` does."""

from pathlib import Path

from fairseq_resynth.data.manifest import Manifest, read_manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.shards import (
    Shard,
    find_parts,
    join_parts,
    missing_parts,
    part_path,
    rows_hash,
)
from fairseq_resynth.preparation.f0 import join_f0, write_speaker_statistics


def _refuse_stale(target: Path, count: int, manifest: Manifest) -> None:
    for index in range(1, count + 1):
        part = part_path(target, Shard(index, count))
        state = part.with_name(part.name + ".json")
        if state.is_file() and read_json(state)["key"]["rows"] != rows_hash(manifest):
            raise ValueError(
                f"{part} was made from another {manifest.source.name} than the one there is now. "
                f"Run shard {index}/{count} again, or delete it."
            )


def merge(data_dir: str | Path) -> tuple[list[str], dict[str, list[str]]]:
    """Joins all parts in a data folder and in its `f0/`; `speakers.json` follows from the F0 of train.

    Returns:
        (files that were joined, those that lack parts with the shards, I/N, that they lack).

    Raises:
        NotADirectoryError: no such folder.
        ValueError: parts of another manifest, or of runs with different options or N.
    """
    data = Path(data_dir)
    if not data.is_dir():
        raise NotADirectoryError(f"{data} is not a folder")
    joined: list[str] = []
    waiting: dict[str, list[str]] = {}
    for target, count in {**find_parts(data), **find_parts(data / "f0")}.items():
        manifest = read_manifest(data / f"{target.stem}.tsv")
        _refuse_stale(target, count, manifest)
        name = target.relative_to(data).as_posix()
        if missing := missing_parts(target, count):
            waiting[name] = [f"{index}/{count}" for index in missing]
        elif (
            join_f0(target, manifest, count)
            if target.suffix == ".npy"
            else join_parts(target, count)
        ):
            joined.append(name)
    if "f0/train.npy" in joined:
        others = [path.stem for path in data.glob("*.tsv")]
        write_speaker_statistics(data, others)
        joined.append("speakers.json")
    return joined, waiting
