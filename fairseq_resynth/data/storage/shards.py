"""Files with an item per manifest row, made by many processes: `--shard I/N` leaves parts to join.

A part of `train.units` is `train.units.2-of-4`. Beside it, `….json` says what it is made from and whether it
is complete, and `….rows` holds eight bytes per row: the hash of the recording that the row was made from, or
zeros. A row counts as done while its recording still has that content, so an interrupted run continues where
it stopped, and a recording that was replaced is read again. A run without `--shard` is shard 1/1, so four
shards give the bytes of one run. The record of the data folder says what made the joined file.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import (
    array_header,
    atomic_path,
    misfit,
    read_object,
    unwritable,
    write_json,
)
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.storage.workers import parallel_map, progress

logger = logging.getLogger(__name__)
_PART = re.compile(r"(?P<target>.+)\.\d+-of-(?P<count>\d{1,5})")
# What the JSON file beside a part holds.
_STATE = {"key": dict, "settings": dict, "manifest": str, "described": dict, "failed": {str: str}}
_STATE |= {"complete": bool, "shape": ([int], type(None))}
_STAMP = 8  # bytes per row
MOST_WAITING = 1000  # hashes of recordings that wait in memory to be recorded
_NOT_DONE, _UNREADABLE = bytes(_STAMP), b"\xff" * _STAMP


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


def rows_hash(manifest: Manifest) -> str:
    """16 hexadecimal digits that change with any path, length or their order, but not with the root."""
    digest = hashlib.sha256()
    for row, samples in enumerate(manifest.num_samples.tolist()):
        digest.update(b"%b\t%d\n" % (manifest.paths.raw(row), samples))
    return digest.hexdigest()[:16]


def part_path(path: str | Path, shard: Shard) -> Path:
    """The path of a share of `path`: `train.units.2-of-4`."""
    return Path(f"{path}.{shard.index}-of-{shard.count}")


def _parts(path: Path, count: int) -> list[Path]:
    return [part_path(path, Shard(index, count)) for index in range(1, count + 1)]


@dataclass
class RowsOutcome(Outcome):
    """What a run did with the rows of a split, or with those of its shard."""

    rows: int = 0  # of this shard
    joined: bool = False  # complete, rather than waiting for other shards or for failed rows


@dataclass(frozen=True)
class Item:
    """A row to make: its recording, the samples that the recording should have, and its `Part.stamp`."""

    row: int
    path: Path
    samples: int
    stamp: bytes


class Part:
    """A shard's rows of a file that has an item per manifest row.

    Ask `finished` first. Then use the part as a context manager, which opens what an earlier run left.

    Args:
        record, name: record of the data folder, and the whole file's path in it: `f0/train.npy`.
        manifest, shard: the split, and which rows of it.
        settings: JSON types, what the rows are made from in addition to the recordings.
        described: JSON files, by name, to write beside the whole file.
        from_recordings: False if the settings already hold the contents of whatever the rows are made from.
    """

    shape: tuple[int, ...] | None = None  # of the whole array; None: lines of text

    def __init__(
        self,
        record: Record,
        name: str,
        manifest: Manifest,
        shard: Shard,
        settings: Mapping[str, Any],
        described: Mapping[str, Any],
        from_recordings: bool = True,
    ):
        self.record, self.name, self.manifest, self.shard = record, name, manifest, shard
        self.rows, self.path = shard.rows(len(manifest)), part_path(record.folder / name, shard)
        self._from_recordings = from_recordings
        self._state = {
            "key": {"rows": rows_hash(manifest), **settings},
            "settings": dict(settings),
            "manifest": manifest.source.name,
            "shape": self.shape,
            "described": dict(described),
            "failed": {},
            "complete": False,
        }

    def finished(self) -> RowsOutcome | None:
        """What the run that made the whole file did with these rows; None if it has to be made (again)."""
        whole, rows = self.record.folder / self.name, len(self.rows)
        if whole.is_file() and not self.record.knows(self.name) and not self.path.is_file():
            logger.warning("%s is made again: nothing is recorded of what made it", self.name)
        key = self._state["key"]
        found = find_whole(self.record, self.name, self.manifest, key, self._from_recordings)
        if found is None:
            return None
        remove_parts(whole, self.shard.count, key)  # of a run that was killed after it joined them
        mine = {self.manifest.paths[row] for row in self.rows} if found["failed"] else set()
        failed = {path: reason for path, reason in found["failed"].items() if path in mine}
        return RowsOutcome(reused=rows - len(failed), failed=failed, rows=rows, joined=True)

    def stamp(self, row: int) -> bytes:
        """The hash of a row's recording as it is now. Take it before the recording is read."""
        return _stamp(self.record, self.manifest, row)

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state, stamps = Path(f"{self.path}.json"), Path(f"{self.path}.rows")
        known = _read_state(state) if self.path.is_file() else {}
        if any(known.get(name) != self._state[name] for name in ("key", "settings")):
            # In this order, and opened in the opposite one: a second process of this shard, which may do the
            # same now, cannot mark rows as done whose values it writes into a file that has been removed.
            for old in (state, self.path, stamps):
                old.unlink(missing_ok=True)
        write_json(state, self._state)
        if self._from_recordings:
            self._stamps = _open(stamps)
            self._stamps.truncate(_STAMP * len(self.rows))
        self._stream = _open(self.path)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for stream in self._streams():
            try:
                stream.close()
            except OSError as another:  # what it still held cannot be written either
                error = error or another
        if isinstance(error, OSError) and error.errno and not error.filename:
            raise unwritable(self.path, error) from error
        self.record.flush()

    def is_done(self, row: int) -> bool:
        """Whether a row was made from its recording as it is now."""
        self._stamps.seek(_STAMP * (row - self.rows.start))
        return (stamp := self._stamps.read(_STAMP)) != _NOT_DONE and stamp == self.stamp(row)

    def _mark(self, row: int, stamp: bytes) -> None:
        self._stamps.seek(_STAMP * (row - self.rows.start))
        self._stamps.write(stamp)
        self._stamps.flush()
        self.record.flush(MOST_WAITING)

    def close(self, failed: Mapping[str, str], accept: bool = False) -> bool:
        """Marks the part as complete, unless rows `failed` (path -> reason) and it is not to `accept` that,
        and joins all parts if it was the last; returns whether the whole file exists."""
        if failed and not accept:
            return False
        count, key = self.shard.count, self._state["key"]
        state = Path(f"{self.path}.json")
        while whole := self._is_whole():
            write_json(state, {**self._state, "failed": dict(failed), "complete": True})
            if join_parts(self.record, self.name, count, key):
                return True
            # Another process may be joining them: it records the whole file, and then removes the parts.
            if self._is_whole():
                break
        record = Record(self.record.folder)
        if find_whole(record, self.name, self.manifest, key, self._from_recordings) is not None:
            remove_parts(self.record.folder / self.name, count, key)
            return True
        # Another process may have begun this part again, and makes the same rows.
        begun = self.path.is_file() and _read_state(state).get("key") == key
        if not whole and not begun:
            raise FileNotFoundError(
                f"{self.path} was removed or changed while it was written: run the command again"
            )
        return False

    def _is_whole(self) -> bool:
        """Whether the files of this part are still those that this process writes."""
        try:
            return all(
                os.path.samestat(os.stat(stream.name), os.fstat(stream.fileno()))
                for stream in self._streams()
            )
        except FileNotFoundError:
            return False

    def _streams(self) -> list[BufferedRandom]:
        return [self._stream, *([self._stamps] if self._from_recordings else [])]


class LinesPart(Part):
    """A part that is text, with one line per row."""

    def keep_lines(self, block: int = 1) -> int:
        """Counts the lines to keep: those in whole blocks of `block` lines, made together. `append` goes on
        behind them, and `close` cuts off what then remains of an earlier run."""
        ends = [0]
        self._stream.seek(0)
        for line in self._stream:
            if line.endswith(b"\n"):
                ends.append(ends[-1] + len(line))
        count = min(len(ends) - 1, len(self.rows))
        if count < len(self.rows):
            count -= count % block
        self._stream.seek(ends[count])
        return count

    def append(self, lines: Mapping[int, str], stamps: Mapping[int, bytes] | None = None) -> None:
        """Writes the lines of the next rows; with stamps, rows without one have failed."""
        # First the stamps: those of rows without a line are not looked at.
        for row in lines if stamps is not None else ():
            self._mark(row, stamps.get(row, _NOT_DONE))
        # Not at the end of the file: a second process of this shard writes the same lines here.
        self._stream.write("".join(f"{line}\n" for line in lines.values()).encode())
        self._stream.flush()

    def close(self, failed: Mapping[str, str], accept: bool = False) -> bool:
        """As that of every part; the file ends after the last line written."""
        self._stream.truncate()
        return super().close(failed, accept)

    def replace(self, lines: Mapping[int, str], stamps: Mapping[int, bytes]) -> None:
        """Writes other lines for some rows; those without a stamp have failed."""
        kept = self._stream.tell()
        self._stream.seek(0)
        old = self._stream.read(kept).splitlines(keepends=True)
        new = b"".join(
            f"{lines[row]}\n".encode() if row in lines else line
            for row, line in zip(self.rows, old, strict=False)
        )
        for row in lines:
            self._mark(row, _NOT_DONE)
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(new)
        self._stream.close()
        self._stream = _open(self.path)
        self._stream.seek(len(new))
        for row, stamp in stamps.items():
            self._mark(row, stamp)


class ArrayPart(Part):
    """A part that is raw float32, `lengths[row]` values per row of the manifest, of an array of `shape`."""

    def __init__(self, lengths: np.ndarray, shape: tuple[int, ...], *arguments: Any):
        self.shape = shape
        super().__init__(*arguments)
        mine = lengths[self.rows.start : self.rows.stop]
        self._starts = np.concatenate([[0], np.cumsum(mine)]).astype(np.int64)

    def __enter__(self):
        super().__enter__()
        try:
            self._stream.truncate(int(self._starts[-1]) * 4)
        except OSError as error:
            raise unwritable(self.path, error) from error
        return self

    def fill(
        self,
        make: Callable[[Item], np.ndarray | str],
        workers: int,
        what: str,
        substitute: float | None = None,
        preload: Sequence[str] = (),
    ) -> RowsOutcome:
        """Makes the missing rows by `parallel_map` of `make` and closes the part; `what` labels the bar.
        `make` gives the values of a row, or the reason why it has none. Rows that failed are filled with
        `substitute`, if it is given; otherwise the next run tries them again."""
        todo, failed = [row for row in self.rows if not self.is_done(row)], {}
        outcome = RowsOutcome(rows=len(self.rows), reused=len(self.rows) - len(todo))
        samples = self.manifest.num_samples
        items = (
            Item(row, self.manifest.path(row), int(samples[row]), self.stamp(row)) for row in todo
        )
        results = parallel_map(make, items, workers, preload)
        for item, found in progress(results, len(self.rows), what, outcome.reused):
            if isinstance(found, str):
                failed[item.row] = found
            else:
                self._write(item.row, found, item.stamp)
                outcome.written += 1
        outcome.failed = {self.manifest.paths[row]: failed[row] for row in sorted(failed)}
        for row in failed if substitute is not None else ():
            self._write(row, substitute, self.stamp(row))
        outcome.joined = self.close(outcome.failed, substitute is not None)
        return outcome

    def read(self, row: int) -> np.ndarray:
        """The float32 values of a row."""
        return np.frombuffer(self._stream.read(self._seek(row) * 4), np.float32)

    def _write(self, row: int, values: np.ndarray | float, stamp: bytes) -> None:
        self._stream.write(np.broadcast_to(np.float32(values), self._seek(row)).tobytes())
        self._stream.flush()
        self._mark(row, stamp)  # as done, so it comes last

    def _seek(self, row: int) -> int:
        """Goes to the first value of a row and returns how many it has."""
        start, stop = self._starts[row - self.rows.start :][:2].tolist()
        self._stream.seek(start * 4)
        return stop - start


def _open(path: Path) -> BufferedRandom:
    """Opens a file to be read and changed, which is made if it does not exist."""
    return open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def _stamp(record: Record, manifest: Manifest, row: int) -> bytes:
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
    stamps = b"".join(_stamp(record, manifest, row) for row in rows)
    facts = record.find(name, _whole_key(record, key, stamps))
    return None if misfit(facts, {"failed": {str: str}}) else facts


def remove_parts(path: Path, count: int, key: Mapping[str, Any]) -> None:
    """Removes the parts with this `key` of a file that has been joined from them, and what is left of parts
    whose description has been removed already."""
    for part in _parts(path, count):
        state = Path(f"{part}.json")
        if _read_state(state, key=dict).get("key", key) == key:
            for file in (state, Path(f"{part}.rows"), part):
                file.unlink(missing_ok=True)


def part_states(path: Path, count: int) -> dict[Path, dict[str, Any]]:
    """What each part that exists says of itself: `key`, `settings`, `manifest`, `complete`, …"""
    parts = [part for part in _parts(path, count) if part.is_file()]
    states = {part: _read_state(Path(f"{part}.json"), **_STATE) for part in parts}
    return {part: state for part, state in states.items() if state}


def _read_state(path: Path, **shapes: Any) -> dict[str, Any]:
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
                    f"{part} and {first.name} were made differently ({', '.join(differing)}). Run one of the "
                    "two shards again."
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
        with atomic_path(path) as temporary:
            with temporary.open("wb") as output:
                if shape := states[0]["shape"]:
                    output.write(array_header(tuple(shape), "<f4"))
                for part in parts:
                    with part.open("rb") as stream:
                        shutil.copyfileobj(stream, output, 1 << 20)
            # Before the file has its name: whoever finds it needs them.
            for beside, value in states[0]["described"].items():
                write_json(path.with_name(beside), value)
    except FileNotFoundError:  # two shards finished at once and the other one joined
        return False
    failed = {row: reason for state in states for row, reason in state["failed"].items()}
    whole = _whole_key(record, states[0]["key"], stamps)
    record.add(name, whole, {"settings": record.key(states[0]["settings"]), "failed": failed})
    remove_parts(path, count, states[0]["key"])
    return True


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
