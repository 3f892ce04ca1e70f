"""Resuming: a record of which settings and inputs made each file of a folder.

Commands that write many files keep a record in `.made_by` in their output folder:

    outcome = Outcome()
    with Record(outdir) as record:
        for name, source in sources.items():  # a Path stands for the content of its file
            record.make(outcome, name, (settings, source), partial(write_speech, source))

A line of the record says that a key made a file with a certain content, which stays true whatever happens
later. The lines therefore need no order and no lock, which many shared file systems lack: every process
appends to its own file, and readers merge all files. A process that is killed loses what it had not
finished. A file whose content differs from the record, because something else has written it since then, is
made again.
"""

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from soundfile import SoundFileError

from fairseq_resynth.data.audio.files import zip_range
from fairseq_resynth.data.storage.files import (
    atomic_path,
    check_file_name,
    file_hash,
    remove_abandoned,
    unique_name,
    unwritable,
)

FOLDER = ".made_by"
_SETTLED = 3600.0  # seconds after which no process appends to a file of the record any more
_MANY_FILES = 32
# Seconds within which a file may change again without a new time of modification: clocks of file systems
# are coarse, some by two seconds.
_CLOCK = 2.0
_INPUT = struct.Struct("<3q8s")  # size, times of modification and change in ns, hash


def _input_line(path: str, known: bytes) -> str:
    *status, content = _INPUT.unpack(known)
    return json.dumps({"input": path, "is": [*status, content.hex()]})


@dataclass
class Outcome:
    """Result of a run on files, or on rows."""

    written: int = 0
    reused: int = 0  # made by an earlier run from the same settings and inputs
    failed: dict[str, str] = field(default_factory=dict)  # name -> reason
    seconds: float = 0.0  # of audio in the files that were written

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, failed files sorted by name."""
        return {**vars(self), "failed": dict(sorted(self.failed.items()))}


def with_content(option: Any) -> Any:
    """An option as part of a key: text that names a file, alone or after `kind:` or `kind=`, as a Path."""
    match = re.fullmatch(r"(?:(\w[\w-]*)[:=])?(.+)", option) if isinstance(option, str) else None
    try:
        return [match[1], Path(match[2])] if match and Path(match[2]).is_file() else option
    except OSError:  # longer than a file's name can be
        return option


class Record:
    """Record of the settings and inputs of each output file. Use it as a context manager, or call
    `flush`. `.made_by` in the folder is created with the first entry. Raises ValueError if a line of it
    is damaged."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._own = self.folder / FOLDER / f"{unique_name()}.jsonl"
        self._waiting: list[str] = []
        self._flushed = 0.0  # when the last line was appended
        # All as text or bytes, which take less memory than parsed lines. A name and key may have lines
        # of several hashes, because results are not always bit-identical.
        self._made: dict[str, str] = {}  # name -> its lines
        self._kept: dict[str, str] = {}  # key -> the line of `keep`
        self._inputs: dict[str, bytes] = {}  # path -> `_INPUT`
        self._read()

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def _read(self) -> None:
        settled = []
        remove_abandoned(self._own.parent)
        for file in sorted(self._own.parent.glob("*.jsonl")):
            try:
                with file.open(encoding="utf-8", errors="replace", newline="\n") as stream:
                    for number, line in enumerate(stream, 1):
                        if line.endswith("\n"):  # otherwise it was cut off
                            self._take(line[:-1], f"{file}:{number}")
                if time.time() - file.stat().st_mtime > _SETTLED:
                    settled.append(file)
            except FileNotFoundError:  # another process has just merged and removed it
                return self._read()
        if len(settled) > _MANY_FILES:
            self._gather(settled)
        return None

    def _take(self, text: str, where: str) -> None:
        try:
            line = json.loads(text)
            if "input" in line:
                *status, content = line["is"]
                self._inputs[line["input"]] = _INPUT.pack(*status, bytes.fromhex(content))
            elif isinstance(line["facts"], dict) and (
                not line["made"] or isinstance(line["is"], list) and len(line["is"]) == 3
            ):
                self._hold(line, text)
            else:
                raise ValueError("expected facts, and the size, time and hash of a file")
        except (ValueError, TypeError, KeyError, RecursionError, struct.error) as error:
            raise ValueError(
                f"{where}: damaged, found {text[:40]!r}. Delete the file; what it records is made again."
            ) from error

    def _hold(self, line: dict[str, Any], text: str) -> None:
        name, key = line["made"], line["by"]
        if not name:
            self._kept.setdefault(key, text)
        else:
            self._made[name] = f"{self._made[name]}\n{text}" if name in self._made else text

    def _lines(self, name: str) -> list[dict[str, Any]]:
        made = self._made.get(name)
        return [json.loads(text) for text in made.split("\n")] if made else []

    def _gather(self, files: Iterable[Path]) -> None:
        """Writes all lines into one file. Safe to run concurrently: each process writes the same lines."""
        inputs = (_input_line(path, known) for path, known in self._inputs.items())
        lines = itertools.chain(inputs, self._kept.values(), self._made.values())
        with atomic_path(self._own.with_name(f"{unique_name()}.jsonl")) as temporary:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in lines)
        for file in files:
            file.unlink(missing_ok=True)

    def content(self, path: str | Path) -> str:
        """The hash of a file's content, or of a member of a ZIP archive, `archive.zip:offset:length`. A file
        whose size and times are as they were when it was hashed is not read again. Raises FileNotFoundError
        if it does not exist."""
        name = os.path.abspath(path)
        zipped = zip_range(name)
        try:
            status = os.stat(zipped[0] if zipped else name)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"{path} does not exist") from None
        # The time of change cannot be set by a program, as that of modification can.
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._inputs.get(name)
        if known and _INPUT.unpack(known)[:-1] == times:
            return _INPUT.unpack(known)[-1].hex()
        found = file_hash(*zipped) if zipped else file_hash(name)
        if time.time_ns() - max(times[1:]) > _CLOCK * 1e9:
            self._inputs[name] = known = _INPUT.pack(*times, bytes.fromhex(found))
            self._waiting.append(_input_line(name, known))
        return found

    def key(self, *parts: Any) -> str:
        """The hash of settings and inputs: JSON types, data classes, arrays, and Paths of files. A Path
        stands for the content of its file, which must exist. Take the key before the inputs are read: if an
        input changes later, the file is recomputed on the next run."""
        text = json.dumps(parts, sort_keys=True, default=self._plain)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Path):
            return ["content", self.content(value)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return vars(value)
        if isinstance(value, bytes):
            return ["bytes", hashlib.sha256(value).hexdigest()]
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"a {type(value).__name__} cannot be a part of a key")
        return [array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()]

    def knows(self, name: str) -> bool:
        """Whether the record has a line about a file, for any settings, and the file exists."""
        return name in self._made and (self.folder / name).is_file()

    def find(self, name: str, key: str) -> dict[str, Any] | None:
        """The facts that were recorded with a file, or None if it is not what this key makes."""
        remove_abandoned((self.folder / name).parent)
        lines = (line for line in self._lines(name) if line["by"] == key)
        return next((line["facts"] for line in lines if self._is_whole(line)), None)

    def _is_whole(self, line: Mapping[str, Any]) -> bool:
        path = self.folder / line["made"]
        if not path.is_file():
            return False
        status = path.stat()
        return line["is"][:-1] == [status.st_size, status.st_mtime_ns] or (
            line["is"][-1] == self.content(path)
        )

    def facts(self, name: str) -> list[dict[str, Any]]:
        """The facts that were recorded with the present content of a file, for any key."""
        return [line["facts"] for line in self._lines(name) if self._is_whole(line)]

    def make(
        self,
        outcome: Outcome,
        name: str,
        parts: Sequence[Any],
        write: Callable[[Path], float],
        facts: Mapping[str, Any] | None = None,
        source: str | Path = "",
    ) -> None:
        """Makes the file `name` unless it is what its key makes already, and counts it in `outcome`. `parts`
        are those of the key. `write` gets a temporary path and returns the seconds of audio that it wrote. A
        ValueError or an error of a file is the reason of a failure of `source` (else of `name`)."""
        try:
            check_file_name(name)
            key = self.key(*parts)
            if self.find(name, key) is not None:
                outcome.reused += 1
                return
            with self.writing(name, key, facts) as temporary:
                seconds = write(temporary)
            outcome.written += 1
            outcome.seconds += seconds
        except (ValueError, OSError, SoundFileError) as error:
            outcome.failed[str(source or name)] = str(error)

    @contextmanager
    def writing(
        self, name: str, key: str, facts: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """Yields a temporary path for the file `name`, which is recorded and renamed when the block
        succeeds. `facts` are JSON types to keep with it; they may be added while the file is written. Raises
        ValueError for a name that `check_file_name` refuses."""
        check_file_name(name)
        with atomic_path(self.folder / name) as temporary:
            yield temporary
            # The line is written first, so that no file lacks an entry if the process is killed.
            self.add(name, key, facts, temporary)

    def add(
        self,
        name: str,
        key: str,
        facts: Mapping[str, Any] | None = None,
        written: Path | None = None,
    ) -> None:
        """Records a file just written, possibly by another process, or to the path `written`."""
        path = written or self.folder / name
        status = path.stat()
        content = [status.st_size, status.st_mtime_ns, file_hash(path)]
        self._add({"made": name, "by": key, "is": content, "facts": dict(facts or {})})

    def values(self, key: str) -> dict[str, Any] | None:
        """Values kept under a key with `keep`, or None."""
        return json.loads(self._kept[key])["facts"] if key in self._kept else None

    def keep(self, key: str, values: Mapping[str, Any]) -> None:
        """Records values that belong to no file, such as measurements."""
        self._add({"made": "", "by": key, "is": None, "facts": dict(values)})

    def _add(self, line: dict[str, Any]) -> None:
        self._hold(line, text := json.dumps(line))
        self._waiting.append(text)
        self.flush()

    def flush(self, least: int = 1) -> None:
        """Appends the lines that are still in memory, if there are `least` or more. Raises OSError if the
        folder cannot be written to, or has been removed or replaced since the first line."""
        if len(self._waiting) < least:
            return
        waiting, self._waiting = self._waiting, []  # threads may add to the new list meanwhile
        try:
            # After an hour, another process may have merged and removed the file of this one.
            if time.time() - self._flushed < _SETTLED / 2 and not self._own.is_file():
                raise FileNotFoundError(
                    errno.ENOENT, "the folder was removed or replaced meanwhile"
                )
            self._own.parent.mkdir(parents=True, exist_ok=True)
            with self._own.open("ab", buffering=0) as stream:
                _append(stream, ("\n".join(waiting) + "\n").encode())
            self._flushed = time.time()
        except OSError as error:
            self._waiting[:0] = waiting
            raise unwritable(self.folder, error) from error


def _append(stream: FileIO, block: bytes) -> None:
    """Appends all of a block or nothing, so that no half line precedes the next block."""
    start = stream.tell()
    try:
        while block:
            block = block[stream.write(block) :]
    except OSError:
        stream.truncate(start)
        raise
