"""One share's rows of a file with an item per manifest row, while they are made: lines of text or arrays.

`storage.shards` says what the files of a part are, and joins them.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import atomic_path, unwritable, write_json
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.storage.shards import (
    STAMP,
    Shard,
    find_whole,
    join_parts,
    part_path,
    read_state,
    remove_parts,
    row_stamp,
)
from fairseq_resynth.data.storage.workers import parallel_map, progress

logger = logging.getLogger(__name__)
MOST_WAITING = 1000  # hashes of recordings that wait in memory to be recorded
_NOT_DONE = bytes(STAMP)


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
            "key": {"rows": manifest.rows_hash(), **settings},
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
        return row_stamp(self.record, self.manifest, row)

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state, stamps = Path(f"{self.path}.json"), Path(f"{self.path}.rows")
        known = read_state(state) if self.path.is_file() else {}
        if any(known.get(name) != self._state[name] for name in ("key", "settings")):
            # In this order, and opened in the opposite one: a second process of this shard, which may do the
            # same now, cannot mark rows as done whose values it writes into a file that has been removed.
            for old in (state, self.path, stamps):
                old.unlink(missing_ok=True)
        write_json(state, self._state)
        if self._from_recordings:
            self._stamps = _open(stamps)
            self._stamps.truncate(STAMP * len(self.rows))
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
        self._stamps.seek(STAMP * (row - self.rows.start))
        return (stamp := self._stamps.read(STAMP)) != _NOT_DONE and stamp == self.stamp(row)

    def _mark(self, row: int, stamp: bytes) -> None:
        self._stamps.seek(STAMP * (row - self.rows.start))
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
        begun = self.path.is_file() and read_state(state).get("key") == key
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
