"""Integer streams of a data directory: `{split}.units` and `{split}.f0`, one line per manifest row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.packed import packed_integers
from fairseq_resynth.data.storage.text_columns import parse_integer_lines, whole_line_blocks
from fairseq_resynth.data.unit_text import parse_integers


class IntegerRows(Sequence[np.ndarray]):
    """Rows of integers in one flat array, shared between data loader workers.

    Args:
        values: (n,) all integers, row after row, of any integer type.
        lengths: (rows,) number of integers in each row.
        maximum: the largest integer, -1 if there are none; None: computed.
    """

    def __init__(self, values: Any, lengths: np.ndarray, maximum: int | None = None):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        self.values = values
        self.maximum = int(values.max(initial=-1)) if maximum is None else maximum

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]  # no slices of rows
        return self.slice(row, 0, int(self.lengths[row]))

    def slice(self, row: int, start: int, length: int) -> np.ndarray:
        """The integers of a row from `start` on, (length,) int64; fewer where the row ends."""
        first = int(self._ends[row] - self.lengths[row])
        stop = min(first + start + length, int(self._ends[row]))
        return self.values[first + start : stop].astype(np.int64)


def read_integer_rows(path: str | Path, rows: int | None, made_by: str) -> IntegerRows:
    """Reads `{split}.units` or `{split}.f0`, or maps the arrays that `resynth pack` made of it.

    Args:
        path: the text file, which need not exist if the split is packed.
        rows: rows of the manifest; None: as many as the file has.
        made_by: the command that makes the file, for the messages.

    Raises FileNotFoundError if the file does not exist, and ValueError if it has another number of lines or
    a line is empty or has a word that is no integer.
    """
    path, end = Path(path), 0
    lengths: list[np.ndarray] = []
    if packed := packed_integers(path):
        return _checked(IntegerRows(*packed), path, rows, made_by)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `{made_by}`.")
    # As many integers as the file could hold: memory that is never written to is never allocated.
    values = np.empty(path.stat().st_size // 2 + 1, dtype=np.int16)
    with path.open("rb") as stream:
        for block in whole_line_blocks(stream):
            parsed = parse_integer_lines(block)
            if parsed is None:
                raise _line_error(block, path, sum(map(len, lengths)) + 1, made_by)
            values = _widened(values, int(parsed[0].max()))
            values[end : end + len(parsed[0])] = parsed[0]
            end += len(parsed[0])
            lengths.append(parsed[1])
    found = IntegerRows(values[:end], np.concatenate([*lengths, np.zeros(0, dtype=np.int64)]))
    return _checked(found, path, rows, made_by)


def _checked(found: IntegerRows, path: Path, rows: int | None, made_by: str) -> IntegerRows:
    if rows is not None and len(found) != rows:
        raise ValueError(
            f"{path} has {len(found)} lines, its manifest {rows} rows. Make it again with `{made_by}`."
        )
    return found


def _widened(values: np.ndarray, largest: int) -> np.ndarray:
    """The array in an integer type that can also hold `largest`."""
    fits = next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)
    return values.astype(np.promote_types(values.dtype, fits), copy=False)


def _line_error(block: bytes, path: Path, first: int, made_by: str) -> ValueError:
    """The error of the first line of a block that is not integers."""
    for number, line in enumerate(block.decode("utf-8", "replace").splitlines(), first):
        if not line.strip():
            return ValueError(
                f"{path}:{number}: the line is empty. Make the file with `{made_by}`."
            )
        parse_integers(line, f"{path}:{number}")
    return ValueError(
        f"{path}:{first}: expected lines of integers. Make the file with `{made_by}`."
    )


def format_integers(values: Sequence[int] | np.ndarray) -> str:
    """Formats integers as one line of a stream file, without the line break."""
    return " ".join(map(str, np.asarray(values).tolist()))


def collapse_runs(units: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapses (U,) integers: (units without repeats, number of repeats of each), (R,) int64 both."""
    units = np.asarray(units, dtype=np.int64)
    starts = np.flatnonzero(np.diff(units, prepend=units[:1] - 1))
    return units[starts], np.diff(starts, append=len(units))
