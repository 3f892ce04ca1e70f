"""Unit sequences in other projects' text files: GSLM's `name|1 2 3` and speech-resynthesis's dict lines."""

import ast
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.units import parse_integers

# Keys of the units in a dict line, in the order in which the original looks for them.
UNIT_KEYS = ("cpc_km100", "vqvae256", "hubert", "hubert_km100", "units", "codes")
DURATION_KEYS = ("durations", "duration", "dur")  # pGSLM's, in frames a unit; a number is seconds


@dataclass(frozen=True)
class UnitRow:
    """One utterance of a unit file.

    Attributes:
        name: the name in front of `|`, the audio path without suffix, or the line number.
        units: (U,) int64.
        audio: path of the recording, when the line has one.
        speaker: name, when the line has one.
        f0: (U,) pitch of each unit, when the line has one: integers are codes, others normalised F0.
        style: name, when the line has one.
    """

    name: str
    units: np.ndarray
    audio: str | None = None
    speaker: str | None = None
    f0: np.ndarray | None = None
    style: str | None = None


def _dict_row(line: str, where: str, number: int) -> UnitRow:
    try:
        values = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{where}: not a dict of plain values: {error}") from error
    keys = [key for key in UNIT_KEYS if isinstance(values, dict) and key in values]
    if not keys:
        raise ValueError(
            f"{where}: found no units, expected one of the keys {', '.join(UNIT_KEYS)}."
        )
    audio = values.get("audio")
    name = str(Path(audio).with_suffix("")) if audio else f"line_{number}"
    units, f0 = _expanded(values, _integers(values[keys[0]], where), where)
    speaker = values.get("spk", values.get("speaker"))
    return UnitRow(name, units, audio, speaker, f0, values.get("style"))


def _integers(values: Any, where: str) -> np.ndarray:
    text = values if isinstance(values, str) else " ".join(map(str, values))
    return parse_integers(text, where)


def _expanded(
    values: dict[str, Any], units: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns units and pitch at the units' rate: both may be written once a run, with its duration."""
    f0 = values.get("f0")
    if f0 is not None:
        try:
            f0 = np.asarray(f0.split() if isinstance(f0, str) else f0)
            f0 = f0 if np.issubdtype(f0.dtype, np.integer) else f0.astype(np.float32)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: f0 is not a list of numbers: {error}") from error
    given = next((values[key] for key in DURATION_KEYS if key in values), None)
    if isinstance(given, list | tuple) or isinstance(given, str) and " " in given.strip():
        durations = _integers(given, where)
        if len(durations) != len(units):
            raise ValueError(f"{where}: {len(units)} units and {len(durations)} durations.")
        durations = np.maximum(durations, 1)
        if f0 is not None and len(f0) == len(units):
            f0 = np.repeat(f0, durations)
        units = np.repeat(units, durations)
    if f0 is not None and len(f0) != len(units):
        raise ValueError(f"{where}: {len(units)} units and {len(f0)} values of f0.")
    return units, f0


def parse_unit_line(line: str, where: str, number: int) -> UnitRow:
    """Parses one line in any of the formats; dict lines are read as literals, never evaluated.

    Args:
        line: `1 2 3`, `name|1 2 3` or `{'audio': …, 'hubert': '1 2 3', …}`.
        where: file:line, for messages.
        number: of the line, the name of a row that has none.

    Raises:
        ValueError: neither, or no units in it.
    """
    if line.lstrip().startswith("{"):
        row = _dict_row(line.strip(), where, number)
    else:
        name, bar, text = line.rpartition("|")
        row = UnitRow(name if bar else f"line_{number}", parse_integers(text, where))
    if not len(row.units):
        raise ValueError(f"{where}: there are no units on the line.")
    return row


def read_unit_file(path: str | Path) -> list[UnitRow]:
    """Reads a file of unit sequences.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty file, an empty or unreadable line, with its number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"{path} is empty.")
    return [
        parse_unit_line(line, f"{path}:{number}", number) for number, line in enumerate(lines, 1)
    ]


# Symbols of fairseq's dictionaries; the last kind fills them up to a multiple of eight.
SPECIAL = re.compile(r"<s>|</s>|<pad>|<unk>|madeupword\d+")
_HYPOTHESIS = re.compile(r"H-(\d+)\t(\S+)\t(.*)")


@dataclass
class Generated:
    """Samples of a unit language model.

    Attributes:
        rows: those with units in them.
        dropped: how often each special symbol was left out.
        empty: names of samples without a unit.
    """

    rows: list[UnitRow] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns (line number, `name|units`): hypotheses alone, if there are any."""
    lines = list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    seen: Counter = Counter()
    hypotheses = []
    for number, line in lines:
        if found := _HYPOTHESIS.match(line):
            hypotheses.append((number, f"{found[1]}__{seen[found[1]]}|{found[3]}"))
            seen[found[1]] += 1
    return hypotheses or [(number, line) for number, line in lines if line.strip()]


def read_generated_units(path: str | Path) -> Generated:
    """Reads samples.

    Args:
        path: lines `name|1 2 3 </s>` or `1 2 3`, or the output of fairseq-interactive, of which the
            hypotheses (H-…) count.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing in it, or a word that is neither a unit nor a special symbol, with its line.
    """
    path, found = Path(path), Generated()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    for number, line in _lines(path):
        name, bar, text = line.rpartition("|")
        found.dropped.update(SPECIAL.findall(text))
        units = SPECIAL.sub(" ", text)
        if not line.lstrip().startswith("{") and not units.strip():
            found.empty.append(name or f"line_{number}")
            continue
        found.rows.append(parse_unit_line(f"{name}{bar}{units}", f"{path}:{number}", number))
    if not found.rows:
        raise ValueError(f"{path} holds no units.")
    return found
