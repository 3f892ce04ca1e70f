"""Reading streams to code: data directories and plain unit files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.data.unit_text import read_unit_file
from fairseq_resynth.data.units import parse_integers


def read_utterances(path: str | Path, splits: Sequence[str] | None = None) -> list[Utterance]:
    """Reads the streams of a data directory or of a file.

    Args:
        path: folder of `resynth quantize`; or a file of lines `name|1 2 3`, `1 2 3` or dict lines, beside
            whose NAME.txt a NAME.f0 may hold F0 codes, a line each.
        splits: of a folder; None: all.

    Raises:
        FileNotFoundError: no such file or folder, or no units in it.
        ValueError: a malformed line, with its number.
    """
    path = Path(path)
    if path.is_dir():
        return [row for split in _splits(path, splits) for row in _read_split(path, split)]
    try:
        rows = read_unit_file(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}.") from error
    codes = _f0_rows(path.with_suffix(".f0"), len(rows))
    return [
        Utterance(row.units, f0_codes, name=Path(row.name).name or row.name)
        for row, f0_codes in zip(rows, codes, strict=True)
    ]


def _f0_rows(path: Path, rows: int) -> Sequence[np.ndarray | None]:
    if not path.is_file():
        return [None] * rows
    lines = read_lines(path, rows, "resynth quantize-f0")
    return [parse_integers(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _splits(folder: Path, splits: Sequence[str] | None) -> list[str]:
    found = sorted(file.stem for file in folder.glob("*.units"))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no *.units. Make them with `resynth quantize {folder}`."
        )
    missing = [split for split in splits or [] if split not in found]
    if missing:
        raise FileNotFoundError(
            f"{folder} has the splits {', '.join(found)}, not {', '.join(missing)}."
        )
    return list(splits or found)


def _read_split(folder: Path, split: str) -> Iterator[Utterance]:
    units_path = folder / f"{split}.units"
    if (folder / f"{split}.tsv").is_file():
        manifest = read_manifest(folder / f"{split}.tsv")
        names: Sequence[str] = [manifest.name(row) for row in range(len(manifest))]
    else:
        count = len(units_path.read_text(encoding="utf-8").splitlines())
        names = [f"{split}_{number}" for number in range(1, count + 1)]
    lines = read_lines(units_path, len(names), "resynth quantize")
    f0_rows = _f0_rows(folder / f"{split}.f0", len(names))
    for row, (name, line) in enumerate(zip(names, lines, strict=True)):
        yield Utterance(parse_integers(line, f"{units_path}:{row + 1}"), f0_rows[row], name=name)


def stream_sizes(paths: Sequence[str | Path], utterances: Sequence[Utterance]) -> dict[str, int]:
    """Returns what `Settings` needs, from the folders' `units.json` and `f0_codes.json` or from the rows.

    Raises:
        ValueError: the folders disagree.
    """
    known: dict[str, int] = {}
    names = {
        "units.json": {"num_clusters": "num_units", "unit_hop": "unit_hop"},
        "f0_codes.json": {"num_codes": "num_f0_codes", "f0_code_hop": "f0_code_hop"},
    }
    for folder in (Path(path) for path in paths):
        for file, keys in names.items():
            stored = read_json(folder / file) if (folder / file).is_file() else {}
            for key, name in keys.items():
                if key in stored and known.setdefault(name, stored[key]) != stored[key]:
                    raise ValueError(
                        f"{folder / file}: {key} is {stored[key]}, elsewhere {known[name]}."
                    )
    if "num_units" not in known:
        largest = max((int(row.units.max(initial=-1)) for row in utterances), default=-1)
        known["num_units"] = largest + 1
    if "num_f0_codes" not in known:
        codes = [
            int(row.f0_codes.max(initial=-1)) for row in utterances if row.f0_codes is not None
        ]
        known["num_f0_codes"] = max(codes, default=-1) + 1
    return known
