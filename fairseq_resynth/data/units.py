"""Integer streams on disk: `{split}.units` and `{split}.f0`, one line a manifest row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairseq_resynth.data.packed import packed_integers
from fairseq_resynth.data.storage.text_columns import parse_integer_lines, whole_line_blocks


class IntegerRows(Sequence[np.ndarray]):
    """Rows of integers in one flat array, shared between data loader workers.

    Args:
        values: all integers one after another, of any integer type.
        lengths: (rows,) how many each row has.
        maximum: the largest, if it is known; else it is looked for.

    Attributes:
        values: all integers one after another.
        lengths: (rows,) int64, integers in each row.
        maximum: largest integer of all rows, -1 when there is none.
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray, maximum: int | None = None):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        self.values = values
        self.maximum = int(values.max(initial=-1)) if maximum is None else maximum

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.slice(row, 0, int(self.lengths[row]))

    def slice(self, row: int, start: int, length: int) -> np.ndarray:
        """Returns integers start … start + length of a row, as far as it goes: (length,) int64."""
        first = int(self._ends[row] - self.lengths[row])
        stop = min(first + start + length, int(self._ends[row]))
        return self.values[first + start : stop].astype(np.int64)


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
    """Reads `{split}.units` or `{split}.f0`, or maps what `resynth pack` made of it.

    Args:
        path: the file.
        rows: rows of the manifest.
        made_by: the command that makes the file, for the messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of lines, an empty line or a word that is no integer, with its line.
    """
    path, lengths, end = Path(path), [], 0
    if packed := packed_integers(path):
        return _checked(IntegerRows(*packed), path, rows, made_by)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `{made_by}`.")
    # room for as many integers as the file could hold; what stays untouched takes no memory
    values = np.empty(path.stat().st_size // 2 + 1, dtype=np.int16)
    with path.open("rb") as stream:
        for block in whole_line_blocks(stream):
            parsed = parse_integer_lines(block)
            if parsed is None:
                _raise_for_line(block, path, sum(map(len, lengths)) + 1, made_by)
            values = _widened(values, int(parsed[0].max()))
            values[end : end + len(parsed[0])] = parsed[0]
            end += len(parsed[0])
            lengths.append(parsed[1])
    found = IntegerRows(values[:end], np.concatenate([*lengths, np.zeros(0, dtype=np.int64)]))
    return _checked(found, path, rows, made_by)


def _checked(found: IntegerRows, path: Path, rows: int, made_by: str) -> IntegerRows:
    if len(found) != rows:
        raise ValueError(
            f"{path} has {len(found)} lines, its manifest {rows} rows. Make it again with `{made_by}`."
        )
    return found


def _widened(values: np.ndarray, largest: int) -> np.ndarray:
    """Returns the array in an integer type that holds `largest` too."""
    fits = next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)
    return values.astype(np.promote_types(values.dtype, fits), copy=False)


def _raise_for_line(block: bytes, path: Path, first: int, made_by: str) -> None:
    for number, line in enumerate(block.decode("utf-8", "replace").splitlines(), first):
        if not line.strip():
            raise ValueError(f"{path}:{number}: the line is empty. Make the file with `{made_by}`.")
        parse_integers(line, f"{path}:{number}")
    raise ValueError(f"{path}: expected lines of integers from 0 on. Make it with `{made_by}`.")


def format_integers(values: Sequence[int] | np.ndarray) -> str:
    """Formats integers as one line of a stream file, without the line break."""
    return " ".join(map(str, np.asarray(values).tolist()))


def collapse_runs(units: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapses repeats: (U,) integers to (units without repeats, how often each came), (R,) int64 both."""
    units = np.asarray(units, dtype=np.int64)
    starts = np.flatnonzero(np.diff(units, prepend=units[:1] - 1))
    return units[starts], np.diff(starts, append=len(units))
