"""A data folder from unit files that others made: what `resynth parse-codes` does."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE, SPLITS, TOKENS
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import file_hash, write_json, write_text
from fairseq_resynth.data.unit_files import read_unit_file
from fairseq_resynth.data.units import UnitRow, do_not_fit, format_integers
from fairseq_resynth.preparation.manifest import FileFinder, listed, write_splits

HOPS = (160, 320, 640, 1280)
DICT_NAMES = {"train": "train", "valid": "val", "test": "test"}  # the original's file names


@dataclass(frozen=True)
class Codes:
    """Units of the rows of a manifest; dicts are by the relative path of the row."""

    units: dict[str, np.ndarray]  # (U,) int64 of each row
    speakers: dict[str, str]  # empty if the file names none
    tokens: dict[str, dict[str, str]]  # of each named token in the file: {"style": {path: "sad"}}
    unit_hop: int  # samples per unit
    num_units: int  # number of different units
    too_short: list[str]  # rows that were left out because of their duration


def match_codes(
    path: str | Path,
    manifest: Manifest,
    unit_hop: int = 0,
    num_units: int = 0,
    min_dur: float = 0,
    key: str = "",
) -> Codes:
    """Gives each row of at least `min_dur` seconds its line of units, by name or by order. If 0, `unit_hop`
    is the one of `HOPS` that fits the lengths, and `num_units` the largest unit + 1; `key` is that of
    `read_unit_file`. Raises ValueError if lines do not match rows, lengths disagree (`do_not_fit`), or only
    some lines name a speaker or a named token."""
    path = Path(path)
    rows = _by_row(path, read_unit_file(path, key), manifest)
    units = {name: row.units for name, row in rows.items()}
    lengths = dict(zip(manifest.paths, manifest.num_samples.tolist(), strict=True))
    hop = unit_hop or _infer_hop(path, units, lengths)
    if wrong := [
        f"{name}: {len(found)} units of {hop} samples, {lengths[name]} samples of audio"
        for name, found in units.items()
        if do_not_fit(np.array(len(found)), np.array(lengths[name]), hop)
    ]:
        collapsed = not any((np.diff(found) == 0).any() for found in units.values())
        raise ValueError(
            f"{path}: units and audio disagree in {len(wrong)} rows"
            + (", and no unit repeats: make them without removing repeats" if collapsed else "")
            + f":{listed(wrong)}"
        )
    largest = max(int(found.max()) for found in units.values())
    if num_units and largest >= num_units:
        raise ValueError(f"{path} holds unit {largest}, outside the table of {num_units}.")
    too_short = [name for name in units if lengths[name] < min_dur * SAMPLE_RATE]
    for name in too_short:
        del units[name], rows[name]
    if not units:
        raise ValueError(f"no row lasts {min_dur} s or more.")
    speakers = _names(path, "speaker", {name: row.speaker for name, row in rows.items()})
    found = {
        token: _names(path, token, {name: row.tokens.get(token) for name, row in rows.items()})
        for token in TOKENS
    }
    tokens = {token: names for token, names in found.items() if names}
    return Codes(units, speakers, tokens, hop, num_units or largest + 1, too_short)


def _names(path: Path, what: str, found: Mapping[str, str | None]) -> dict[str, str]:
    names = {row: name.strip() for row, name in found.items() if name and name.strip()}
    if names and (without := [row for row in found if row not in names]):
        raise ValueError(
            f"{path}: {len(without)} rows have no {what}, but others have:{listed(without)}"
        )
    return names


def _by_row(path: Path, rows: Sequence[UnitRow], manifest: Manifest) -> dict[str, UnitRow]:
    """The line of each manifest row, matched by name or, without names, by order."""
    paths = list(manifest.paths)
    if rows[0].name is None:
        if len(rows) != len(paths):
            raise ValueError(
                f"{path} has {len(rows)} lines without names, {manifest.source} {len(paths)} rows."
            )
        return dict(zip(paths, rows, strict=True))
    finder = FileFinder(paths)
    found: dict[str, UnitRow] = {}
    unknown, several = [], []
    for row in rows:
        name = row.audio or row.name
        if name is None:
            raise ValueError(f"{path}:{row.line}: the line has no name, but others have one.")
        matches = finder.candidates(name)
        if len(matches) == 1 and matches[0] not in found:
            found[matches[0]] = row
        else:
            (several if matches else unknown).append(name)
    missing = [audio for audio in paths if audio not in found]
    for names, what in (
        (unknown, f"lines name files that {manifest.source} does not have"),
        (several, f"lines name a file twice, or one of several in {manifest.source}"),
        (missing, f"files of {manifest.source} have no line"),
    ):
        if names:
            raise ValueError(f"{path}: {len(names)} {what}:{listed(names)}")
    return {audio: found[audio] for audio in paths}


def _infer_hop(path: Path, units: Mapping[str, np.ndarray], lengths: Mapping[str, int]) -> int:
    ratio = float(np.median([lengths[name] / len(found) for name, found in units.items()]))
    hop = min(HOPS, key=lambda candidate: abs(candidate - ratio))
    if not 0.8 < ratio / hop < 1.25:
        raise ValueError(
            f"{path}: {ratio:.0f} samples of audio per unit, expected about {', '.join(map(str, HOPS))}: is "
            "it the right manifest? Give another rate with --unit-hop."
        )
    return hop


def write_codes(
    outdir: str | Path,
    manifest: Manifest,
    codes: Codes,
    splits: Mapping[str, Sequence[str]],
    speakers: Mapping[str, str],
    description: dict[str, Any],
    dict_key: str = "",
) -> list[str]:
    """Writes `{split}.tsv`, `.speaker`, `.units`, named tokens and `units.json`, with the entries of
    `description`; returns sentences for the user. With `dict_key`, also writes the original's
    {train,val,test}.txt, whose lines have the units under this key."""
    outdir = Path(outdir)
    lengths = dict(zip(manifest.paths, manifest.num_samples.tolist(), strict=True))
    notes = write_splits(manifest.root, outdir, splits, lengths, speakers, codes.tokens)
    for split in SPLITS:
        names = sorted(splits.get(split, []))
        if not names:
            (outdir / f"{split}.units").unlink(missing_ok=True)
            continue
        lines = [format_integers(codes.units[name]) for name in names]
        write_text(outdir / f"{split}.units", "\n".join(lines) + "\n")
        if dict_key:
            rows = []
            for name, line in zip(names, lines, strict=True):
                seconds = lengths[name] / SAMPLE_RATE
                row = {"audio": str(manifest.root / name), dict_key: line, "duration": seconds}
                rows.append(f"{row}\n")
            write_text(outdir / f"{DICT_NAMES[split]}.txt", "".join(rows))
    units = {"num_clusters": codes.num_units, "unit_hop": codes.unit_hop, **description}
    write_json(outdir / "units.json", units)
    return [note for note in notes if ".units" not in note]  # they have just been written


def describe(path: str | Path, feature_type: str) -> dict[str, Any]:
    """What `units.json` says of units that were made elsewhere."""
    return {
        "feature_type": feature_type,
        "codes": str(path),
        "codes_hash": _content_hash(Path(path)),
    }


def _content_hash(path: Path) -> str:
    if path.is_file():
        return file_hash(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()
