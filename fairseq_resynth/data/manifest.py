"""The manifest of fairseq (a root, then `path<TAB>samples`), and files with one line per row of it."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fairseq_resynth.constants import SPLITS
from fairseq_resynth.data.audio.files import zip_range
from fairseq_resynth.data.storage.files import decode_text, require_exists, text_lines, write_text
from fairseq_resynth.data.storage.messages import shown
from fairseq_resynth.data.storage.text_columns import Names, StringArray, line_spans, parse_decimals

_BLANKS = re.compile(rb"[ \t]+(?=\r?$)", re.M)


class Manifest:
    """The rows of one `{split}.tsv`, the file `source`: `paths` relative to the folder `root`, and
    `num_samples`, the (rows,) int64 lengths of the recordings in samples."""

    def __init__(self, source: Path, root: Path, paths: Iterable[str], num_samples: ArrayLike):
        self.source, self.root = source, root
        self.paths = paths if isinstance(paths, StringArray) else StringArray.of(paths)
        self.num_samples = np.asarray(num_samples, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.num_samples)

    def path(self, row: int) -> Path:
        """The path of a row's audio."""
        return self.root / self.paths[row]

    def name(self, row: int) -> str:
        """The name of a row in output files: its path without the suffix; `a/b_12` for `a/b.zip:12:345`."""
        if zipped := zip_range(self.paths[row]):
            return f"{zipped[0].with_suffix('')}_{zipped[1]}"
        path = Path(self.paths[row]).with_suffix("")
        if path.is_absolute():  # it would name a place outside the folder of outputs
            path = path.relative_to(self.root if path.is_relative_to(self.root) else path.anchor)
        return str(path)

    def rows_hash(self) -> str:
        """16 hexadecimal digits that change with any path, length or their order, but not with the root."""
        digest = hashlib.sha256()
        for row, samples in enumerate(self.num_samples.tolist()):
            digest.update(b"%b\t%d\n" % (self.paths.raw(row), samples))
        return digest.hexdigest()[:16]


def check_samples(found: int, expected: int) -> None:
    """Raises ValueError if a recording has another number of samples than its manifest says."""
    if found != expected:
        raise ValueError(
            f"found {found} samples, the manifest says {expected}; run `resynth manifest` again"
        )


def _parse_rows(block: bytes, source: Path) -> tuple[StringArray, np.ndarray]:
    """Parses the lines after the first; raises ValueError with the number of a malformed line."""
    data = np.frombuffer(block, dtype=np.uint8)
    starts, ends = (offsets[1:] for offsets in line_spans(block))
    tabs = np.flatnonzero(data == ord("\t"))
    last = np.searchsorted(tabs, ends) - 1  # the last tab before a line's end
    tab = tabs[np.maximum(last, 0)] if len(tabs) else np.full(len(ends), -1)
    samples = parse_decimals(data, tab + 1, ends)
    wrong = np.flatnonzero((last < 0) | (tab <= starts) | (samples < 0))
    if len(wrong):
        row = int(wrong[0])
        line = block[starts[row] : ends[row]].decode("utf-8", "replace")
        raise ValueError(
            f"{source}:{row + 2}: expected `path<TAB>samples`, found {line[:80]!r}. "
            "Write manifests with `resynth manifest`."
        )
    return StringArray(block, starts, tab), samples


def require_data_directory(data: str | Path) -> Path:
    """The path of a data directory. Raises FileNotFoundError if it does not exist or no name was given."""
    if not str(data) or not Path(data).is_dir():
        name = str(data) or "DATA"
        raise FileNotFoundError(
            f"the data directory {name} does not exist. Make it with `resynth manifest AUDIO "
            f"--outdir {name}`."
        )
    return Path(data)


def read_manifest(path: str | Path) -> Manifest:
    """Reads `{split}.tsv`. Raises FileNotFoundError if it or its root folder does not exist, and ValueError
    if a row is malformed or repeated, there are no rows, or the file is not UTF-8."""
    path = Path(path)
    require_exists(path, ". Make it with `resynth manifest`.")
    block = path.read_bytes()
    if not block.isascii():  # decoded as a whole, so that no row fails later
        block = decode_text(block, path).encode("utf-8")
    # Blanks at the ends of lines, and blank lines at the end of the file, as editors and scripts leave them.
    block = _BLANKS.sub(b"", block).rstrip(b"\r\n") + b"\n"
    if (lines := len(line_spans(block)[0])) < 2:
        raise ValueError(f"{path} has {lines} line(s), expected a root and at least one row.")
    root = path.parent / block[: block.index(b"\n")].decode("utf-8").strip()
    if "\t" in str(root):
        raise ValueError(
            f"{path}:1: found a row, expected the root folder, which every path after it is relative to"
        )
    paths, samples = _parse_rows(block, path)
    if repeat := paths.first_repeat():
        first, second = repeat
        raise ValueError(
            f"{path}:{second + 2}: {shown(paths[second])} is already on line {first + 2}."
        )
    # A packed split needs no audio files.
    # pathlib's raises OSError for a name that is too long.
    if not os.path.isdir(root) and not (path.with_suffix(".pack") / "index.json").is_file():
        raise FileNotFoundError(
            f"{path}:1: the root {shown(root)} is not a folder on this machine. If the audio was "
            "moved, write its new folder to line 1, or run `resynth manifest` again."
        )
    return Manifest(path, root, paths, samples)


def read_splits(data: str | Path, names: Sequence[str] | None) -> dict[str, Manifest]:
    """Reads the manifests of the named splits; None: those of train, valid and test that exist. Raises
    FileNotFoundError if the folder does not exist, has no manifest at all, or lacks a named one."""
    data = require_data_directory(data)
    names = names or [name for name in SPLITS if (data / f"{name}.tsv").is_file()]
    if not names:
        raise FileNotFoundError(
            f"{data} has none of {', '.join(f'{name}.tsv' for name in SPLITS)}. Make them with "
            "`resynth manifest`."
        )
    return {name: read_manifest(data / f"{name}.tsv") for name in names}


def write_manifest(path: str | Path, root: str | Path, rows: Iterable[tuple[str, int]]) -> None:
    """Writes `{split}.tsv`; `rows` are (relative path, samples)."""
    write_text(path, f"{root}\n" + "".join(f"{name}\t{samples}\n" for name, samples in rows))


def read_lines(path: str | Path, rows: int, made_by: str) -> list[str]:
    """Reads a file that has one line per manifest row and that the command `made_by` makes. Raises
    FileNotFoundError if it does not exist, and ValueError if the number of lines is not `rows`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `{made_by}`.")
    lines = text_lines(path)
    while len(lines) > rows and not lines[-1].strip():
        lines.pop()
    if len(lines) != rows:
        raise ValueError(
            f"{path} has {len(lines)} lines, its manifest {rows} rows. Make it again with `{made_by}`."
        )
    return lines


def read_names(path: str | Path, rows: int) -> Names:
    """Reads `{split}.speaker` or a named token, one name per row; raises as `read_lines` does."""
    return Names(line.strip() for line in read_lines(path, rows, "resynth manifest"))
