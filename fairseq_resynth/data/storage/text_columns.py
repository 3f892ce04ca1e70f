"""Columns of text files as arrays: a million rows without a million Python objects.

A file is one `bytes` object, and its lines are offsets into it. Data loader workers that are forked share
both, since reading them changes no reference counts.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_NEWLINE, _RETURN, _SPACE, _ZERO = b"\n\r 0"
DIGITS = 18  # any integer of so many digits fits into an int64


class StringArray(Sequence[str]):
    """Strings in one block of UTF-8 bytes, each from its start to before its end, (n,) int64 both."""

    def __init__(self, block: bytes, starts: np.ndarray, ends: np.ndarray):
        self._block, self._starts, self._ends = block, starts, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> "StringArray":
        """Packs strings into one block."""
        encoded = [text.encode("utf-8") for text in strings]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(b"".join(encoded), ends - [len(text) for text in encoded], ends)

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, index: int) -> bytes:
        """The UTF-8 bytes of a string."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._block[self._starts[index] : self._ends[index]]

    def __getitem__(self, index: int) -> str:
        return self.raw(index).decode("utf-8")

    def first_repeat(self) -> tuple[int, int] | None:
        """The rows of the first string that occurs twice, (earlier, later); None if all differ."""
        hashes = np.fromiter((hash(self.raw(row)) for row in range(len(self))), np.int64, len(self))
        hashes.sort()
        if not (hashes[1:] == hashes[:-1]).any():
            return None
        seen: dict[bytes, int] = {}
        for row in range(len(self)):
            if (before := seen.setdefault(self.raw(row), row)) != row:
                return before, row
        return None


class Names(Sequence[str]):
    """One name per row, where few names differ: `table` is sorted, `rows` are (n,) int32 indices into it."""

    def __init__(self, names: Iterable[str]):
        index: dict[str, int] = {}
        found = np.array([index.setdefault(name, len(index)) for name in names], dtype=np.int32)
        self.table = sorted(index)
        place = {name: number for number, name in enumerate(self.table)}
        self.rows = np.array([place[name] for name in index], dtype=np.int32)[found]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> str:
        return self.table[self.rows[row]]

    def grouped(self) -> dict[str, np.ndarray]:
        """The rows of each name, ascending."""
        order = np.argsort(self.rows, kind="stable")
        bounds = np.searchsorted(self.rows[order], np.arange(1, len(self.table)))
        return dict(zip(self.table, np.split(order, bounds), strict=True))


def line_spans(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    r"""The first byte of each line and the one after its last, (n,) int64 both, without `\n` or `\r\n`."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    if len(block) and not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64) if len(ends) else ends
    returns = (ends > starts) & (data[np.maximum(ends - 1, 0)] == _RETURN) if len(ends) else False
    return starts, ends - returns


def parse_decimals(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Parses the digits between offsets of (n,) uint8 data: (rows,) int64, -1 where there is none."""
    values, widths = np.zeros(len(starts), dtype=np.int64), ends - starts
    bad = (widths < 1) | (widths > DIGITS)
    for place in range(min(int(widths.max(initial=0)), DIGITS)):
        inside = place < widths
        digits = data[np.where(inside, ends - 1 - place, 0)] - np.uint8(_ZERO)
        bad |= inside & (digits > 9)
        values += np.where(inside, digits.astype(np.int64) * 10**place, 0)
    return np.where(bad, -1, values)


def parse_integer_lines(block: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Parses lines of non-negative integers separated by spaces: (all integers, how many each line has). Both
    are int64. None if a line is empty or has other text."""
    data = np.frombuffer(block, dtype=np.uint8)
    inside = data > _SPACE
    edges = np.diff(inside.view(np.int8), prepend=np.int8(0), append=np.int8(0))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    values = parse_decimals(data, starts, ends)
    line_starts, _ = line_spans(block)
    lengths = np.diff(np.searchsorted(starts, np.append(line_starts, len(block))))
    if (values < 0).any() or (lengths == 0).any():
        return None
    return values, lengths


def whole_line_blocks(stream, size: int = 1 << 21) -> Iterator[bytes]:
    """Yields a binary file in blocks of whole lines, of about `size` bytes."""
    while block := stream.read(size):
        yield block + stream.readline()
