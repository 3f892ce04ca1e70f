"""One job over many machines: `--shard I/N` leaves parts, which the last shard to finish joins.

A part of `train.units` is `train.units.2-of-4`, with `train.units.2-of-4.json` beside it: the key (what it
was made from: the manifest's rows and the options) and whether it is complete. A run of its own is shard 1/1
and goes the same way, so that an interrupted run continues where it stopped and four shards give the bytes
of one run:

    shard, key = parse_shard("2/4"), {"rows": rows_hash(manifest), "kmeans": "1f0c…"}
    part = open_part(path, shard, key)                # drops what was made from something else
    done = whole_lines(part)                          # rows that an interrupted run left here
    with part.open("a") as stream:
        for row in shard.rows(len(manifest))[done:]:
            stream.write(line_of(row) + "\\n")
    close_part(path, shard, key, beside={"units.json": {…}})
    joined = join_parts(path, shard.count, key)       # False while other shards are at work
"""

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import atomic_path, read_json, write_json

_PART = re.compile(r"(?P<target>.+)\.(?P<index>\d+)-of-(?P<count>\d+)")


@dataclass(frozen=True)
class Shard:
    """Share `index` (from 1) of `count` equal shares of the work."""

    index: int = 1
    count: int = 1

    def rows(self, total: int) -> range:
        """Returns the contiguous rows of this share; the shares of all indices cover 0 … total - 1 once."""
        return range((self.index - 1) * total // self.count, self.index * total // self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Parses `I/N`.

    Raises:
        ValueError: not of that form, or I is not within 1 … N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(
            f"--shard: found {text!r}, expected I/N with I from 1 to N, for instance 2/4"
        )
    return Shard(int(match[1]), int(match[2]))


def rows_hash(manifest: Manifest) -> str:
    """Returns 16 hexadecimal digits that change with any path, length or their order, not with the root."""
    digest = hashlib.sha256()
    for row, samples in enumerate(manifest.num_samples.tolist()):
        digest.update(b"%b\t%d\n" % (manifest.paths.raw(row), samples))
    return digest.hexdigest()[:16]


def part_path(path: str | Path, shard: Shard) -> Path:
    """Returns where a share of `path` lies: `train.units.2-of-4`."""
    path = Path(path)
    return path.with_name(f"{path.name}.{shard.index}-of-{shard.count}")


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def open_part(path: str | Path, shard: Shard, key: dict[str, Any]) -> Path:
    """Returns the part's file, which exists; what was made with another key is emptied first."""
    part = part_path(path, shard)
    part.parent.mkdir(parents=True, exist_ok=True)
    state = _state_path(part)
    if not (part.is_file() and state.is_file() and read_json(state)["key"] == key):
        state.unlink(missing_ok=True)
        part.write_bytes(b"")
        write_json(state, {"key": key, "complete": False})
    return part


def whole_lines(part: Path) -> int:
    """Cuts a last line without its end, which an interrupted run may leave, and counts the lines."""
    count = end = 0
    with part.open("r+b") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                count, end = count + 1, end + len(line)
        stream.truncate(end)
    return count


def close_part(
    path: str | Path, shard: Shard, key: dict[str, Any], beside: dict[str, Any] | None = None
) -> None:
    """Marks a part as complete.

    Args:
        path: the file that the parts make together.
        shard: which part.
        key: as given to `open_part`.
        beside: JSON files, by name, to write beside `path` when the parts are joined.
    """
    state = {"key": key, "complete": True, "beside": beside or {}}
    write_json(_state_path(part_path(path, shard)), state)


def is_closed(path: str | Path, shard: Shard, key: dict[str, Any]) -> bool:
    """Tells whether the part is complete and made with this key."""
    part = part_path(path, shard)
    state = _state_path(part)
    if not (part.is_file() and state.is_file()):
        return False
    found = read_json(state)
    return bool(found["complete"]) and found["key"] == key


def _states(path: Path, count: int) -> list[dict[str, Any] | None]:
    parts = [part_path(path, Shard(index, count)) for index in range(1, count + 1)]
    return [
        read_json(_state_path(part)) if part.is_file() and _state_path(part).is_file() else None
        for part in parts
    ]


def missing_parts(path: str | Path, count: int, key: dict[str, Any] | None = None) -> list[int]:
    """Returns the indices (from 1) of the parts that are not complete.

    Args:
        path: the file that the parts make together.
        count: how many parts there are.
        key: what they must be made from, parts of an earlier run count as missing; None: all of the same.

    Raises:
        ValueError: without `key`, complete parts that were made from different things.
    """
    path = Path(path)
    missing = []
    for index, state in enumerate(_states(path, count), 1):
        if state is None or not state["complete"]:
            missing.append(index)
        elif key is not None and state["key"] != key:
            missing.append(index)
    return missing if key is not None else _of_one_making(path, count, missing)


def _of_one_making(path: Path, count: int, missing: list[int]) -> list[int]:
    states = {i: state for i, state in enumerate(_states(path, count), 1) if i not in missing}
    for index, state in states.items():
        first = min(states)
        differing = [k for k, value in states[first]["key"].items() if state["key"].get(k) != value]
        if differing:
            raise ValueError(
                f"{part_path(path, Shard(index, count))} and part {first}-of-{count} were made differently "
                f"({', '.join(differing)}). Run one of the two shards again."
            )
    return missing


def join_parts(
    path: str | Path, count: int, key: dict[str, Any] | None = None, header: bytes = b""
) -> bool:
    """Joins the parts into `path`, writes the files beside it and removes the parts, if all are complete.

    Args:
        path: the file to write.
        count: how many parts there are.
        key: see `missing_parts`.
        header: bytes to put in front.

    Returns:
        Whether it joined them: False while a part is missing, or when another process was joining them.

    Raises:
        ValueError: parts made from different things.
    """
    path = Path(path)
    if missing_parts(path, count, key):
        return False
    parts = [part_path(path, Shard(index, count)) for index in range(1, count + 1)]
    try:
        beside = read_json(_state_path(parts[0])).get("beside", {})
        _concatenate(path, parts, header)
    except FileNotFoundError:  # two shards finished at once and the other one joined
        return False
    for name, value in beside.items():
        write_json(path.with_name(name), _with_other_rows(path.with_name(name), value))
    remove_parts(parts)
    return True


def _with_other_rows(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Keeps the splits that a description of the same making lists under `rows` already."""
    before = read_json(path) if path.is_file() else {}
    same = all(before.get(name) == value[name] for name in value if name != "rows")
    if not same or not isinstance(value.get("rows"), dict):
        return value
    return {**value, "rows": {**before.get("rows", {}), **value["rows"]}}


def _concatenate(path: Path, parts: Sequence[Path], header: bytes) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as output:
        output.write(header)
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, output, 1 << 20)


def remove_parts(parts: Sequence[Path]) -> None:
    """Removes parts and what lies beside them."""
    for part in parts:
        _state_path(part).unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def find_parts(folder: str | Path) -> dict[Path, int]:
    """Returns the files that parts in `folder` belong to, with the number of parts each needs.

    Raises:
        ValueError: parts of the same file were made with different N.
    """
    found: dict[Path, int] = {}
    for file in sorted(Path(folder).glob("*-of-*")):
        match = _PART.fullmatch(file.name)
        if not match:
            continue
        target, count = file.with_name(match["target"]), int(match["count"])
        if found.setdefault(target, count) != count:
            raise ValueError(
                f"{target} has parts of {found[target]} and of {count} shards. Delete those of one run."
            )
    return found
