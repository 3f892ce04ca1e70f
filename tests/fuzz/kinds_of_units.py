"""Units of other tools, in every spelling and container."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import Kind, npy, one, saved
from mutations import (
    change_array,
    change_bytes,
    change_json,
    change_json_lines,
    change_lines,
    change_zip,
)

from fairseq_resynth.data.storage.files import write_json
from fairseq_resynth.data.unit_files import read_generated_units, read_unit_file
from fairseq_resynth.preparation.unit_bpe import UnitBpe, train_bpe


def _npz(value: Any, stream: Any) -> None:
    np.savez(stream, **value)


def _parquet(rows: dict[str, Any], stream: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(rows), stream)


def _arrow(rows: dict[str, Any], stream: Any, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table(rows)
    with getattr(pyarrow.ipc, f"new_{kind}")(stream, table.schema) as writer:
        writer.write_table(table)


def _saved_dataset(folder: Path) -> None:
    data = saved(lambda rows, stream: _arrow(rows, stream, "stream"), TABLE)
    (folder / "saved").mkdir()
    (folder / "saved" / "data-00000.arrow").write_bytes(data)
    write_json(folder / "saved" / "state.json", {"_data_files": [{"filename": "data-00000.arrow"}]})


ROWS = [np.array([1, 2, 3]), np.array([4, 5])]
TABLE = {
    "audio": ["a.wav", "b.wav"],
    "units": [[1, 2, 3], [4, 5]],
    "durations": [[1, 1, 2], [2, 3]],
}
SPELLINGS = {
    "plain.txt": b"1 2 3\n4 5 6\n",
    "named.txt": b"a|1 2 3\nb|4 5\n",
    "tabs.txt": b"a\t1 2 3\nb\t4 5\n",
    "cpc.txt": b"a\t1,2,3\nb\t4,5\n",
    "dicts.txt": b"{'audio': 'a.wav', 'hubert': '1 2 3', 'duration': 0.5}\n",
    "prosody.txt": b"{'audio': 'a', 'units': [1, 2], 'f0': [0.5, 1.5], 'dur': [1, 2], 'style': 'sad'}\n",
    "tokens.txt": b"[Hu1][Hu22]\n[St3][Pi4][Hu5]\n",
    "samples.log": b"S-0\t1 2\nH-0\t-0.5\t1 2 3\nP-0\t-0.1\nH-0\t-0.7\t4 5\n",
}
BINARY = {
    "units.npy": (saved(npy, np.arange(9)), change_array),
    "rows.npz": (saved(_npz, {"a": ROWS[0], "b": ROWS[1]}), change_zip),
    "rows.pt": (saved(torch.save, {"a": torch.tensor([1, 2]), "b": torch.tensor([3])}), change_zip),
    "old.pt": (
        saved(
            lambda value, stream: torch.save(value, stream, _use_new_zipfile_serialization=False),
            [torch.tensor([1, 2])],
        ),
        change_bytes,
    ),
}
TABLES = {
    "table.parquet": _parquet,
    "file.arrow": lambda rows, stream: _arrow(rows, stream, "file"),
    "stream.arrow": lambda rows, stream: _arrow(rows, stream, "stream"),
}
UNIT_READERS = [read_unit_file, read_generated_units]
UNITS = {
    **{
        name: one(name, data, UNIT_READERS, change_bytes, change_lines)
        for name, data in SPELLINGS.items()
    },
    "lines.jsonl": one(
        "lines.jsonl",
        b'{"file_name": "a", "units": [1, 2], "durations": [1, 2], "id": "x"}\n' * 2,
        UNIT_READERS,
        change_bytes,
        change_json_lines,
    ),
    **{
        name: one(name, data, UNIT_READERS, change_bytes, change)
        for name, (data, change) in BINARY.items()
    },
    **{
        name: one(name, partial(saved, save, TABLE), [read_unit_file], change_bytes)
        for name, save in TABLES.items()
    },
    "state.json": Kind(
        _saved_dataset,
        "saved/state.json",
        [lambda path: read_unit_file(path.parent)],
        [change_bytes, change_json],
    ),
    "saved.arrow": Kind(
        _saved_dataset,
        "saved/data-00000.arrow",
        [lambda path: read_unit_file(path.parent)],
        [change_bytes],
        30,
    ),
    "units.bpe": Kind(
        lambda folder: train_bpe(ROWS, 8, 14, folder / "units.bpe"),
        "units.bpe",
        [UnitBpe],
        [change_bytes],
    ),
}
