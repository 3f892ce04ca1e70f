"""Files of units: text, tables (parquet, Hugging Face datasets) and arrays (numpy, torch).

What a file is follows from its content, never from its name. A folder is a saved dataset, or holds files of
any of these kinds.
"""

import csv
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import TOKENS
from fairseq_resynth.data.audio.decoding import AUDIO_SUFFIXES
from fairseq_resynth.data.storage.files import (
    map_array,
    read_object,
    reading,
    text_lines,
    unpacked_size,
)
from fairseq_resynth.data.storage.messages import one_line, shown
from fairseq_resynth.data.units import (
    DURATION_KEYS,
    UNIT_KEYS,
    UnitRow,
    parse_line,
    parse_values,
)

# Symbols of fairseq's and slamkit's dictionaries; madeupword fills fairseq's up to a multiple of eight.
_SPECIAL = re.compile(r"</?s>|<pad>|<unk>|madeupword\d+|<S>|<PAD>|<UNK>")
_HYPOTHESIS = re.compile(r"H-(\d+)\t(\S+)\t(.*)")
_COLUMNS = {"audio", "file_name", "id", "name", "spk", "speaker", "f0", *TOKENS, *DURATION_KEYS}
_SMALL_ARRAYS = 1 << 24  # bytes
_DATA_DIRECTORY = ("*.tsv", "*.units", "*.pack")


@dataclass
class GeneratedUnits:
    """Samples of a language model, counts of special symbols left out, and names without units."""

    rows: list[UnitRow] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)


def is_unit_folder(path: Path) -> bool:
    """Whether a folder holds files of units of other tools, and is not a data directory."""
    return (
        path.is_dir() and any(path.iterdir()) and not any(map(any, map(path.glob, _DATA_DIRECTORY)))
    )


def read_unit_file(path: str | Path, key: str = "", codebooks: int = 1) -> list[UnitRow]:
    """Reads the units of a file, a saved dataset or a folder of files.

    `key` says which part of it holds the units, where there are several: the key or the column, the kind of
    the tokens (`Hu`), the row of an array, or `all` for an array whose rows are utterances. With several
    `codebooks` the units of a row may be two-dimensional, for `as_frames`. Raises
    FileNotFoundError if the file does not exist, and ValueError if it is empty or unreadable, a row has no
    units, or `key` is needed.
    """
    path = Path(path)
    rows = _binary_rows(path, key, codebooks > 1)
    if rows is None:
        lines = list(_unit_lines(path))
        rows = _column_rows(lines, path, key) or [parse_line(*line, key) for line in lines]
    for row in rows:
        if not row.units.size:
            raise ValueError(f"{path}:{row.line}: expected units, found none on the line.")
        if codebooks == 1:
            _check_one_codebook(row, path)
    return rows


def _check_one_codebook(row: UnitRow, path: Path) -> None:
    if row.units.ndim > 1:
        raise ValueError(
            f"{path}:{row.line}: expected one unit per frame, found lists of {row.units.shape[1]}."
        )


def read_generated_units(path: str | Path, key: str = "") -> GeneratedUnits:
    """Reads samples of a unit language model, without special symbols and empty lines; `key` and errors are
    those of `read_unit_file`, but a row may be without units if not all of them are."""
    found, path = GeneratedUnits(), Path(path)
    if (rows := _binary_rows(path, key)) is not None:
        found.rows = [row for row in rows if len(row.units)]
        found.empty = [row.label for row in rows if not len(row.units)]
    else:
        for text, where, number in _unit_lines(path):
            found.dropped.update(_SPECIAL.findall(text))
            row = parse_line(_SPECIAL.sub(" ", text), where, number, key)
            if len(row.units):
                found.rows.append(row)
            elif text.strip():
                found.empty.append(row.label)
    for row in found.rows:
        _check_one_codebook(row, path)
    if not found.rows:
        raise ValueError(f"{path}: expected units, found none in the file.")
    return found


def _unit_lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yields (line, file:line, line number); of a log of fairseq-interactive the hypotheses alone."""
    lines = text_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty.")
    numbered = list(enumerate(lines, 1))
    hypotheses, seen = [], Counter[str]()
    for number, line in numbered:
        if match := _HYPOTHESIS.match(line):
            hypotheses.append((number, f"{match[1]}__{seen[match[1]]}|{match[3]}"))
            seen[match[1]] += 1
    for number, line in hypotheses or numbered:
        yield line, f"{path}:{number}", number


def _binary_rows(path: Path, key: str, frames: bool = False) -> list[UnitRow] | None:
    """The rows of a folder or of a file that is not text; None for text. With `frames` an array of two
    dimensions is one utterance."""
    files = path.rglob("*") if path.is_dir() else [path]
    if recording := next((file for file in files if file.suffix.lower() in AUDIO_SUFFIXES), None):
        raise ValueError(
            f"{recording} is a recording, expected units; `resynth resynthesize` and `resynth convert` take "
            "recordings."
        )
    if path.is_dir():
        return _folder_rows(path, key, frames)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    with path.open("rb") as stream:
        start = stream.read(6)
    if start[:4] in (b"PAR1", b"ARRO", b"\xff" * 4):
        return [*_table_rows([path], path, key)]
    if start == b"\x93NUMPY" or start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return _array_rows(_load_arrays(path, start), path, key, frames)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{"):
        try:
            found = json.loads("\n".join(text_lines(path)))
        except (ValueError, RecursionError):
            return None  # lines of JSON, or token strings
        if isinstance(found, list) and not isinstance(next(iter(found), 0), int):
            return _array_rows(found, path, key, frames)
        by_name = isinstance(found, dict) and not _COLUMNS & set(found) and len(found) > 1
        if by_name and all(isinstance(value, list | str | dict) for value in found.values()):
            return _array_rows(found, path, key, frames)
    return None


def _column_rows(lines: list[tuple[str, str, int]], path: Path, key: str) -> list[UnitRow]:
    """The rows of a table of text, whose first line names its columns; none if the file is not one."""
    separator = "\t" if "\t" in lines[0][0] else ","
    names = [name.strip() for name in lines[0][0].split(separator)]
    if len(names) < 2 or not all(map(str.isidentifier, names)) or len(lines) < 2:
        return []
    if key not in names and not set(names) & set(UNIT_KEYS):
        raise ValueError(_which_column(path, names))
    rows = csv.reader((line for line, _, _ in lines[1:]), delimiter=separator)
    found = []
    for (_, where, number), values in zip(lines[1:], rows, strict=True):
        if len(values) != len(names):
            raise ValueError(f"{where}: expected {len(names)} columns, found {len(values)}.")
        found.append(parse_values(dict(zip(names, values, strict=True)), where, number, key))
    return found


def _which_column(path: Path, names: Sequence[str]) -> str:
    found = shown(", ".join(names))
    return f"{path} has the columns {found}: --units-key NAME says which of them holds the units."


def _load_arrays(path: Path, start: bytes) -> Any:
    """The content of a file of numpy or torch, whose tensors become arrays; nothing in it is run."""
    try:
        archive = start[:2] == b"PK" and zipfile.ZipFile(path).namelist()
        if start[:1] == b"\x93":
            return map_array(path)
        if archive and all(name.endswith(".npy") for name in archive):
            if (size := unpacked_size(path)) > _SMALL_ARRAYS + 100 * path.stat().st_size:
                raise ValueError(
                    f"its arrays claim {size >> 20} MiB, more than 100 times the file's"
                )
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
    except Exception as error:  # a foreign file can make its reader fail in any way
        raise _unreadable(path, "arrays of numpy", error) from error
    import torch

    from fairseq_resynth.data.storage.checkpoints import refusals

    with refusals(path, "units (tensors)", ()):
        return _without_tensors(torch.load(path, map_location="cpu", weights_only=True))


def _without_tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_tensors(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item) for item in value]
    return value.numpy() if hasattr(value, "numpy") else value


def _array_rows(found: Any, path: Path, key: str, frames: bool) -> list[UnitRow]:
    """The utterances of an array, of a list of arrays or dicts, or of a dict of either."""
    if isinstance(found, Mapping) and any(name in found for name in (key, *UNIT_KEYS)):
        found = [found]
    if isinstance(found, Mapping):
        if key and key != "all" and not key.isdigit():
            raise ValueError(
                f"{path}: --units-key {key}: found {shown(', '.join(map(str, found)))}."
            )
        named = list(found.items())
    elif isinstance(found, list) and not all(isinstance(value, int) for value in found):
        named = [(None, value) for value in found]
    else:
        named = [(path.stem, found)]
    rows = []
    for name, value in named:
        where = f"{path}: utterance {len(rows) + 1}"
        if isinstance(value, Mapping):
            values = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in value.items()}
            rows.append(parse_values(values, where, len(rows) + 1, key))
            continue
        if isinstance(value, str):
            rows.append(replace(parse_line(value, where, len(rows) + 1, key), name=name))
            continue
        for units in _utterances(value, where, key, frames):
            rows.append(UnitRow(units, len(rows) + 1, None if name is None else str(name)))
    names = Counter(row.name for row in rows)
    # The rows of one array are numbered.
    return [
        replace(row, name=f"{row.name}_{row.line}") if row.name and names[row.name] > 1 else row
        for row in rows
    ]


def _utterances(value: Any, where: str, key: str, frames: bool) -> list[np.ndarray]:
    try:
        array = np.asarray(value)
        if frames and array.ndim > 2 and set(array.shape[:-2]) == {1}:
            array = array.reshape(array.shape[-2:])  # a batch of one
    except ValueError as error:
        raise ValueError(f"{where}: expected an array of integers: {one_line(error)}") from error
    if not np.issubdtype(array.dtype, np.integer) or array.ndim not in (1, 2):
        raise ValueError(
            f"{where}: expected an array of integers of one or two dimensions, found {array.dtype} of shape "
            f"{array.shape}."
        )
    if array.size and array.min() < 0:
        raise ValueError(f"{where}: expected integers from 0 on, found {array.min()}.")
    if frames:
        return [array.astype(np.int64)]
    rows = list(np.atleast_2d(array).astype(np.int64))
    if len(rows) < 2 or key == "all":
        return rows
    if not key.isdigit() or int(key) >= len(rows):
        raise ValueError(
            f"{where} is an array of shape {array.shape}: give --units-key all if each of its rows is an "
            f"utterance, or the row that holds the units, 0 to {len(rows) - 1}."
        )
    return [rows[int(key)]]


def _folder_rows(path: Path, key: str, frames: bool) -> list[UnitRow]:
    """The rows of a dataset that `datasets` saved, or of all files in a folder, which name them."""
    if (path / "dataset_dict.json").is_file():
        splits = sorted(file.parent.name for file in path.glob("*/state.json"))
        raise ValueError(
            f"{path} holds the splits {shown(', '.join(splits))}: give the folder of one of them."
        )
    if (path / "state.json").is_file():
        named = read_object(path / "state.json", _data_files=list)["_data_files"]
        with reading(path / "state.json", "that of a saved dataset"):
            files = [path / file["filename"] for file in named]
        return [*_table_rows(files, path, key)]
    rows = []
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        found = read_unit_file(file, key, 1 + frames)
        name = str(file.relative_to(path).with_suffix(""))
        for row in found:
            if row.name in (None, file.stem):
                row = replace(row, name=name if len(found) == 1 else f"{name}_{row.line}")
            rows.append(row)
    return rows


def _table_rows(files: Sequence[Path], source: Path, key: str) -> Iterator[UnitRow]:
    """Yields the rows of tables of parquet or Arrow."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise ValueError(
            f"{source} is a table of parquet or Arrow: pip install 'fairseq_resynth[parquet]' to read it."
        ) from error
    number = 0
    try:
        for file in files:
            with file.open("rb") as stream:
                start = stream.read(4)
            if start == b"PAR1":
                table = parquet.ParquetFile(file)
                schema, batches = table.schema_arrow, table.iter_batches(1000)
            elif start == b"ARRO":
                table = ipc.open_file(file)
                schema, batches = (
                    table.schema,
                    map(table.get_batch, range(table.num_record_batches)),
                )
            else:
                batches = ipc.open_stream(file)
                schema = batches.schema
            names = _columns(schema, source, key)
            for batch in batches:
                batch = batch.select(names)
                batch.validate(full=True)  # a damaged one would crash the process
                for values in batch.to_pylist():
                    number += 1
                    yield parse_values(values, f"{source}: row {number}", number, key)
    except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise _unreadable(source, "a table", error) from error


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    return ValueError(f"{path} is not readable as {what}: {one_line(error)}")


def _columns(schema: Any, source: Path, key: str) -> list[str]:
    """The columns to read. Raises ValueError if it is unclear which of them holds the units."""
    found = [name for name in schema.names if name == key or not key and name in UNIT_KEYS]
    if len(found) != 1:
        raise ValueError(_which_column(source, schema.names))
    return [*found, *(name for name in schema.names if name in _COLUMNS - {key})]
