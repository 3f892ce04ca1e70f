"""Shares of the work, `--shard I/N`, and the parts that they leave of a file with an item per manifest row.

`storage.parts` writes a part; here all parts become the whole file. A part of `train.units` is
`train.units.2-of-4`. Beside it, `….json` says what it is made from and whether it is complete, and `….rows`
holds eight bytes per row: the hash of the recording that the row was made from, or zeros. A row counts as
done while its recording still has that content, so an interrupted run continues where it stopped, and a
recording that was replaced is read again. A run without `--shard` is shard 1/1, so four shards give the bytes
of one run. The record of the data folder says what made the joined file.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import (
    array_header,
    atomic_path,
    check_file_name,
    misfit,
    read_object,
    write_json,
)
from fairseq_resynth.data.storage.messages import shown
from fairseq_resynth.data.storage.resume import Record

_PART = re.compile(r"(?P<target>.+)\.\d+-of-(?P<count>\d{1,5})")
# What the JSON file beside a part holds.
_STATE = {"key": dict, "settings": dict, "manifest": str, "described": dict, "failed": {str: str}}
_STATE |= {"complete": bool, "shape": list | None}
STAMP = 8  # bytes per row in `….rows`
_UNREADABLE = b"\xff" * STAMP


@dataclass(frozen=True)
class Shard:
    """Share `index` (from 1) of `count` equal shares of the work."""

    index: int = 1
    count: int = 1

    def rows(self, total: int) -> range:
        """The contiguous rows of this share; the shares of all indices cover 0 … total - 1 once."""
        return range((self.index - 1) * total // self.count, self.index * total // self.count)


def parse_shard(text: str) -> Shard:
    """Parses `I/N`. Raises ValueError if the text has another form, or I is not within 1 … N, or N is
    over 99,999."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match and len(match[2]) < 6 and 1 <= int(match[1]) <= int(match[2]):
        return Shard(int(match[1]), int(match[2]))
    raise ValueError(f"--shard: found {text!r}, expected I/N with I from 1 to N, for instance 2/4")


def part_path(path: str | Path, shard: Shard) -> Path:
    """The path of a share of `path`: `train.units.2-of-4`."""
    return Path(f"{path}.{shard.index}-of-{shard.count}")


def _parts(path: Path, count: int) -> list[Path]:
    return [part_path(path, Shard(index, count)) for index in range(1, count + 1)]


def row_stamp(record: Record, manifest: Manifest, row: int) -> bytes:
    """The hash of a row's recording as it is now; all bits are 1 if it cannot be read."""
    try:
        return bytes.fromhex(record.content(manifest.path(row)))
    except OSError:
        return _UNREADABLE


def _whole_key(record: Record, key: Mapping[str, Any], stamps: bytes) -> str:
    return record.key(key, hashlib.sha256(stamps).hexdigest())


def find_whole(
    record: Record, name: str, manifest: Manifest, key: Mapping[str, Any], from_recordings: bool
) -> dict[str, Any] | None:
    """What is recorded of the whole file, if parts of this `key` and the recordings as they are now give it;
    otherwise None."""
    if not record.knows(name):
        return None
    rows = range(len(manifest)) if from_recordings else ()
    stamps = b"".join(row_stamp(record, manifest, row) for row in rows)
    facts = record.find(name, _whole_key(record, key, stamps))
    return None if misfit(facts, {"failed": {str: str}}) else facts


def remove_parts(path: Path, count: int, key: Mapping[str, Any]) -> None:
    """Removes the parts with this `key` of a file that has been joined from them, and what is left of parts
    whose description has been removed already."""
    for part in _parts(path, count):
        state = Path(f"{part}.json")
        if read_state(state, key=dict).get("key", key) == key:
            for file in (state, Path(f"{part}.rows"), part):
                file.unlink(missing_ok=True)


def part_states(path: Path, count: int) -> dict[Path, dict[str, Any]]:
    """What each part that exists says of itself: `key`, `settings`, `manifest`, `complete`, …"""
    parts = [part for part in _parts(path, count) if part.is_file()]
    states = {part: read_state(Path(f"{part}.json"), **_STATE) for part in parts}
    return {part: state for part, state in states.items() if state}


def read_state(path: Path, **shapes: Any) -> dict[str, Any]:
    """What a part says of itself; empty if another task has joined the parts and removed it, perhaps now."""
    try:
        return read_object(path, **shapes)
    except FileNotFoundError:
        return {}


def missing_parts(path: Path, count: int, key: Mapping[str, Any] | None = None) -> list[int]:
    """The indices (from 1) of the `count` parts of a file that are not complete, or made from another `key`.
    Without a key, all must have the same one; raises ValueError if complete parts differ in it."""
    complete = {
        part: state["key"] for part, state in part_states(path, count).items() if state["complete"]
    }
    if key is None and complete:
        first, key = next(iter(complete.items()))
        for part, other in complete.items():
            if differing := [name for name, value in key.items() if other.get(name) != value]:
                raise ValueError(
                    f"{part} and {first.name} were made differently "
                    f"({shown(', '.join(differing))}). Run one of the two shards again."
                )
    parts = enumerate(_parts(path, count), 1)
    return [index for index, part in parts if part not in complete or complete[part] != key]


def join_parts(record: Record, name: str, count: int, key: Mapping[str, Any] | None = None) -> bool:
    """Joins the parts of the file `name` of a data folder and removes them, if `missing_parts` finds none.
    Also writes the JSON files beside it. Returns False if it joined nothing, since a part is missing or
    another process joined them. Raises ValueError if the parts were made from different things."""
    path = record.folder / name
    if missing_parts(path, count, key):
        return False
    parts = _parts(path, count)
    try:
        states = [read_object(Path(f"{part}.json"), **_STATE) for part in parts]
        files = [Path(f"{part}.rows") for part in parts]
        stamps = b"".join(file.read_bytes() for file in files if file.is_file())
        shape, described = states[0]["shape"], states[0]["described"]
        _check_joint(parts, shape, described)
        with atomic_path(path) as temporary:
            with temporary.open("wb") as output:
                if shape:
                    output.write(array_header(tuple(shape), "<f4"))
                for part in parts:
                    with part.open("rb") as stream:
                        shutil.copyfileobj(stream, output, 1 << 20)
            # Before the file has its name: whoever finds it needs them.
            for beside, value in described.items():
                write_json(path.with_name(beside), value)
    except FileNotFoundError:  # two shards finished at once and the other one joined
        return False
    failed = {row: reason for state in states for row, reason in state["failed"].items()}
    whole = _whole_key(record, states[0]["key"], stamps)
    record.add(name, whole, {"settings": record.key(states[0]["settings"]), "failed": failed})
    remove_parts(path, count, states[0]["key"])
    return True


def _check_joint(parts: Sequence[Path], shape: list[int] | None, described: Iterable[str]) -> None:
    """Raises ValueError if parts do not give an array of float32 of this shape (None: they are text), or
    the names of the files beside it are none."""
    size, wrong = sum(map(os.path.getsize, parts)), misfit(shape or [], [int], "shape")
    if not wrong and shape and (min(shape) < 0 or math.prod(shape) * 4 != size):
        wrong = f"the shape {ascii(shape)[:40]}, and {size} bytes in the parts"
    try:
        for name in described:
            check_file_name(name)
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise ValueError(f"{parts[0]}.json is damaged: found {wrong}. Run that shard again.")


def find_parts(folder: str | Path) -> dict[Path, int]:
    """The files that parts in `folder` belong to, with the number of parts that each needs. Raises ValueError
    if parts of the same file were made with different N."""
    found: dict[Path, int] = {}
    for file in sorted(Path(folder).glob("*-of-*")):
        if match := _PART.fullmatch(file.name):
            target, count = file.with_name(match["target"]), int(match["count"])
            if found.setdefault(target, count) != count:
                raise ValueError(
                    f"{target} has parts of {found[target]} and of {count} shards. Delete those of one run."
                )
    return found
