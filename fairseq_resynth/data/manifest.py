"""fairseq's audio manifest: line 1 the root, then `path<TAB>samples`; and the line files beside it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fairseq_resynth.data.files import write_text


class StringArray(Sequence[str]):
    """Strings in one block of bytes, so that a million rows are two arrays that workers share."""

    def __init__(self, strings: Iterable[str]):
        encoded = [text.encode("utf-8") for text in strings]
        self._block = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = self._ends[index - 1] if index else 0
        return self._block[start : self._ends[index]].tobytes().decode("utf-8")


class Manifest:
    """The rows of one `{split}.tsv`.

    Attributes:
        source: the file it was read from.
        root: folder that the paths are relative to.
        paths: relative paths, as written.
        num_samples: (rows,) int64, length of each file in samples at the file's rate.
    """

    def __init__(self, source: Path, root: Path, paths: Iterable[str], num_samples: Sequence[int]):
        self.source = source
        self.root = root
        self.paths = StringArray(paths)
        self.num_samples = np.asarray(num_samples, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.num_samples)

    def path(self, row: int) -> Path:
        """Returns where row's audio lies."""
        return self.root / self.paths[row]

    def name(self, row: int) -> str:
        """Returns the relative path without its suffix: what a row is called in output files."""
        return str(Path(self.paths[row]).with_suffix(""))


def _parse_row(line: str, number: int, source: Path) -> tuple[str, int]:
    path, separator, samples = line.rpartition("\t")
    if not separator or not path or not samples.strip().isdigit():
        raise ValueError(
            f"{source}:{number}: expected `path<TAB>samples`, found {line[:80]!r}. "
            "Write manifests with `resynth manifest`."
        )
    return path, int(samples)


def read_manifest(path: str | Path) -> Manifest:
    """Reads `{split}.tsv`.

    Raises:
        FileNotFoundError: no such file, or its root folder is not on this machine.
        ValueError: a malformed or repeated row, with its line; or no row at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `resynth manifest`.")
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) < 2:
        raise ValueError(f"{path} has {len(lines)} line(s), expected a root and at least one row.")
    root = Path(lines[0].strip())
    if not root.is_absolute():
        root = path.parent / root
    rows = [_parse_row(line, number, path) for number, line in enumerate(lines[1:], 2)]
    paths, samples = zip(*rows, strict=True)
    _refuse_repeats(paths, path)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{path}:1: the root {root} is not a folder on this machine. If the audio moved, put its "
            "new folder on line 1, or run `resynth manifest` again."
        )
    return Manifest(path, root, paths, samples)


def _refuse_repeats(paths: Sequence[str], source: Path) -> None:
    if len(set(paths)) == len(paths):
        return
    first: dict[str, int] = {}
    for number, path in enumerate(paths, 2):
        if path in first:
            raise ValueError(f"{source}:{number}: {path} is already on line {first[path]}.")
        first[path] = number


def write_manifest(path: str | Path, root: str | Path, rows: Iterable[tuple[str, int]]) -> None:
    """Writes `{split}.tsv` atomically; `rows` are (relative path, samples)."""
    body = "".join(f"{name}\t{samples}\n" for name, samples in rows)
    write_text(path, f"{root}\n{body}")


def read_lines(path: str | Path, rows: int, made_by: str) -> list[str]:
    """Reads a file that has one line a manifest row.

    Args:
        path: the file.
        rows: how many lines there must be.
        made_by: the command that makes the file, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of lines.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `{made_by}`.")
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) != rows:
        raise ValueError(
            f"{path} has {len(lines)} lines, its manifest {rows} rows. Make it again with `{made_by}`."
        )
    return lines
