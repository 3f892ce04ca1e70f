"""Integer streams on disk: `{split}.units` and `{split}.f0`, one line a manifest row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairseq_resynth.data.manifest import read_lines


class IntegerRows(Sequence[np.ndarray]):
    """Rows of integers in one flat array, shared between data loader workers.

    Attributes:
        lengths: (rows,) int64, integers in each row.
        maximum: largest integer of all rows, -1 when there is none.
    """

    def __init__(self, rows: Sequence[np.ndarray]):
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        flat = np.concatenate(rows) if len(rows) else np.zeros(0, dtype=np.int64)
        self.maximum = int(flat.max(initial=-1))
        self._values = flat.astype(np.int16 if self.maximum < 2**15 else np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.slice(row, 0, int(self.lengths[row]))

    def slice(self, row: int, start: int, length: int) -> np.ndarray:
        """Returns integers start … start + length of a row, as far as it goes: (length,) int64."""
        first = int(self._ends[row] - self.lengths[row])
        stop = min(first + start + length, int(self._ends[row]))
        return self._values[first + start : stop].astype(np.int64)


def parse_integers(text: str, where: str) -> np.ndarray:
    """Parses space-separated non-negative integers into (n,) int64.

    Raises:
        ValueError: something else is there; the message starts with `where` (file:line).
    """
    try:
        values = np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: expected integers separated by spaces: {error}") from error
    if len(values) and values.min() < 0:
        raise ValueError(f"{where}: found {values.min()}, expected integers from 0 on")
    return values


def read_integer_rows(path: str | Path, rows: int, made_by: str) -> IntegerRows:
    """Reads `{split}.units` or `{split}.f0`.

    Args:
        path: the file.
        rows: rows of the manifest.
        made_by: the command that makes the file, for the messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of lines, an empty line or a word that is no integer, with its line.
    """
    parsed = []
    for number, line in enumerate(read_lines(path, rows, made_by), 1):
        if not line.strip():
            raise ValueError(f"{path}:{number}: the line is empty. Make the file with `{made_by}`.")
        parsed.append(parse_integers(line, f"{path}:{number}"))
    return IntegerRows(parsed)


def format_integers(values: Sequence[int] | np.ndarray) -> str:
    """Formats integers as one line of a stream file, without the line break."""
    return " ".join(map(str, np.asarray(values).tolist()))


def collapse_runs(units: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapses repeats: (U,) integers to (units without repeats, how often each came), (R,) int64 both."""
    units = np.asarray(units, dtype=np.int64)
    starts = np.flatnonzero(np.diff(units, prepend=units[:1] - 1))
    return units[starts], np.diff(starts, append=len(units))
