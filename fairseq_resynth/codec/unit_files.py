"""Reading streams to code: data directories and plain unit files."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairseq_resynth.codec.fit import Utterance
from fairseq_resynth.data.files import read_json
from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.units import parse_integers

F0_KEYS = ("f0_codes", "f0")
_NOT_UNITS = ("audio", "duration", "name", "speaker", *F0_KEYS)
_FORMATS = "expected dict lines {'audio': 'a.wav', 'hubert': '1 2 3', 'duration': 0.06}, lines `name|1 2 3` or `1 2 3`"


def read_utterances(path: str | Path, splits: Sequence[str] | None = None) -> list[Utterance]:
    """Reads the streams of a data directory or of a file.

    Args:
        path: folder of `resynth quantize`, or a file of lines `name|1 2 3`, `name|1 2 3|4 5` (with F0 codes), `1 2 3`,
            or dict lines, whose units are under the first key that is not audio, duration, name, speaker or F0.
        splits: of a folder; None: all.

    Raises:
        FileNotFoundError: no such file or folder, or no units in it.
        ValueError: a malformed line, with its number.
    """
    path = Path(path)
    if path.is_dir():
        return [row for split in _splits(path, splits) for row in _read_split(path, split)]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; {_FORMATS}, or a folder of `resynth quantize`."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}; {_FORMATS}.") from error
    rows = [
        _parse_line(line.strip(), f"{path}:{number}", f"{path.stem}-{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise ValueError(f"{path} has no line with units; {_FORMATS}.")
    return rows


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
    units_path, f0_path = folder / f"{split}.units", folder / f"{split}.f0"
    rows = len(units_path.read_text(encoding="utf-8").splitlines())
    names: Sequence[str] = [f"{split}-{row + 1}" for row in range(rows)]
    if (folder / f"{split}.tsv").is_file():
        manifest = read_manifest(folder / f"{split}.tsv")
        names = [manifest.name(row) for row in range(len(manifest))]
    lines = read_lines(units_path, len(names), "resynth quantize")
    f0_lines = None
    if f0_path.is_file():
        f0_lines = read_lines(f0_path, len(names), "resynth quantize-f0")
    for row, line in enumerate(lines):
        units = parse_integers(line, f"{units_path}:{row + 1}")
        codes = None if f0_lines is None else parse_integers(f0_lines[row], f"{f0_path}:{row + 1}")
        yield Utterance(names[row], units, codes)


def _parse_line(line: str, where: str, name: str) -> Utterance:
    if line.startswith("{"):
        return _parse_dict(line, where, name)
    parts = line.split("|")
    if len(parts) == 1:
        return Utterance(name, parse_integers(parts[0], where))
    if len(parts) > 3:
        raise ValueError(f"{where}: found {len(parts)} fields divided by |; {_FORMATS}.")
    codes = parse_integers(parts[2], where) if len(parts) == 3 else None
    return Utterance(parts[0].strip() or name, parse_integers(parts[1], where), codes)


def _parse_dict(line: str, where: str, name: str) -> Utterance:
    try:
        fields = ast.literal_eval(line)
        texts = {key: value for key, value in fields.items() if isinstance(value, str)}
    except (ValueError, SyntaxError, AttributeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: not a literal dictionary: {error}; {_FORMATS}.") from error
    units = [key for key in texts if key not in _NOT_UNITS]
    if not units:
        raise ValueError(f"{where}: found the keys {', '.join(map(str, fields))}; {_FORMATS}.")
    codes = next((parse_integers(texts[key], where) for key in F0_KEYS if key in texts), None)
    audio = texts.get("audio", texts.get("name", name))
    name = re.sub(r"\.\w+$", "", audio.replace("\\", "/").rsplit("/", 1)[-1])
    return Utterance(name, parse_integers(texts[units[0]], where), codes)


def stream_sizes(paths: Sequence[str | Path], utterances: Sequence[Utterance]) -> dict[str, int]:
    """Returns what `Settings` needs: from `units.json` and `f0_codes.json` of the folders, else from the rows.

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
