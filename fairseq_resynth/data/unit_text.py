"""The reader of unit sequences in text files from several tools.

The format of a line is recognized by its content:

    1 2 3                                       HuBERT, `resynth quantize`
    name|1 2 3                                  GSLM
    name<TAB>1,2,3                              CPC
    {'audio': 'a.wav', 'hubert': '1 2 3', …}    speech-resynthesis, pGSLM; parsed as a literal
    H-0<TAB>-0.5<TAB>1 2 3                      a log of fairseq-interactive; other lines are skipped
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# Keys of the units in a dict line, in the order in which the original looks for them.
UNIT_KEYS = ("cpc_km100", "vqvae256", "hubert", "hubert_km100", "units", "codes")
DURATION_KEYS = ("durations", "duration", "dur")  # pGSLM's, in frames per unit; a number is seconds
# Symbols of fairseq's dictionaries; the last kind fills them up to a multiple of eight.
_SPECIAL = re.compile(r"<s>|</s>|<pad>|<unk>|madeupword\d+")
_HYPOTHESIS = re.compile(r"H-(\d+)\t(\S+)\t(.*)")
_DIGITS = 18  # any integer of so many digits fits into an int64


@dataclass(frozen=True)
class UnitRow:
    """One utterance of a unit file; the fields after `name` are of dict lines."""

    units: np.ndarray  # (U,) int64
    line: int  # its number in the file, from 1
    name: str | None = None  # the text before `|` or the tab, or the audio path without its suffix
    audio: str | None = None  # path of the recording
    speaker: str | None = None  # name of the speaker
    f0: np.ndarray | None = None  # (U,) pitch: integers are codes, other numbers normalized F0
    style: str | None = None  # name of the speaking style

    @property
    def label(self) -> str:
        """The name, or `line_N` if the row has none."""
        return self.name or f"line_{self.line}"


@dataclass
class GeneratedUnits:
    """Samples of a unit language model, how often each special symbol was left out, and names without
    units."""

    rows: list[UnitRow] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)


def parse_integers(text: str, where: str) -> np.ndarray:
    """Parses non-negative integers separated by spaces into (n,) int64. Raises ValueError if a word is
    something else; the message starts with `where` (file:line)."""
    words = text.split()
    for word in words:
        # int() also takes 1_000, +1 and digits of other scripts
        if not (word.isascii() and word.isdigit() and len(word) <= _DIGITS):
            raise ValueError(
                f"{where}: expected integers from 0 on, separated by spaces, found {word[:40]!r}"
            )
    return np.array([int(word) for word in words], dtype=np.int64)


def parse_dict_line(line: str, where: str) -> dict[str, Any]:
    """Parses a dict line as a literal; it is never evaluated. Raises ValueError if it is not a dict of
    plain values, or `audio` is not a string; the message starts with `where`."""
    try:
        values = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"{where}: expected {{'audio': path, …}} of plain values: {error}"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected {{'audio': path, …}}, found {line.strip()[:80]!r}")
    if not isinstance(values.get("audio", ""), str):
        raise ValueError(f"{where}: expected a path under 'audio', found {values['audio']!r}")
    return values


def read_unit_file(path: str | Path) -> list[UnitRow]:
    """Reads a file in any format of this module. Raises FileNotFoundError if it does not exist, and
    ValueError if it is empty or not text, or a line has no units or cannot be parsed."""
    rows = [_parse_line(*line) for line in _unit_lines(Path(path))]
    for row in rows:
        if not len(row.units):
            raise ValueError(f"{path}:{row.line}: expected units, found none on the line.")
    return rows


def read_generated_units(path: str | Path) -> GeneratedUnits:
    """Reads samples of a unit language model, without fairseq's special symbols such as `</s>`; empty lines
    are skipped. Raises as `read_unit_file` does, but only if no sample has units."""
    found = GeneratedUnits()
    for text, where, number in _unit_lines(Path(path)):
        found.dropped.update(_SPECIAL.findall(text))
        row = _parse_line(_SPECIAL.sub(" ", text), where, number)
        if len(row.units):
            found.rows.append(row)
        elif text.strip():
            found.empty.append(row.label)
    if not found.rows:
        raise ValueError(f"{path}: expected units, found none in the file.")
    return found


def _unit_lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yields (line, file:line, line number); of a log of fairseq-interactive the hypotheses alone."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}.") from error
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


def _parse_line(line: str, where: str, number: int) -> UnitRow:
    if line.lstrip().startswith("{"):
        return _parse_dict_row(line, where, number)
    if "|" in line:
        name, _, text = line.rpartition("|")
    else:
        name, tab, text = line.rpartition("\t")
        if name.strip().isdigit() and text.strip() and "," not in text:
            raise ValueError(
                f"{where}: {name.strip()} may be a unit or a name: separate units by spaces, or write "
                "`name|1 2 3`."
            )
        text = text.replace(",", " ") if tab else text
    return UnitRow(parse_integers(text, where), number, name or None)


def _parse_dict_row(line: str, where: str, number: int) -> UnitRow:
    values = parse_dict_line(line, where)
    key = next((key for key in UNIT_KEYS if key in values), None)
    if key is None:
        raise ValueError(
            f"{where}: expected one of the keys {', '.join(UNIT_KEYS)}, found {', '.join(values)}."
        )
    units, f0 = _expand(values, _parse_list(values[key], where), where)
    audio, speaker = values.get("audio"), values.get("spk", values.get("speaker"))
    name = str(Path(audio).with_suffix("")) if audio else None
    speaker = None if speaker is None else str(speaker)
    return UnitRow(units, number, name, audio, speaker, f0, values.get("style"))


def _parse_list(values: Any, where: str) -> np.ndarray:
    if not isinstance(values, str | list | tuple):
        raise ValueError(f"{where}: expected a list of integers, found {values!r}.")
    return parse_integers(values if isinstance(values, str) else " ".join(map(str, values)), where)


def _expand(
    values: dict[str, Any], units: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Repeats units and pitch by their durations, if the line has run lengths instead of frames."""
    f0 = values.get("f0")
    if f0 is not None:
        try:
            f0 = np.asarray(f0.split() if isinstance(f0, str) else f0)
            f0 = f0 if np.issubdtype(f0.dtype, np.integer) else f0.astype(np.float32)
            if f0.ndim != 1:
                raise ValueError(f"found an array of shape {f0.shape}")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: expected a list of numbers for f0: {error}") from error
    given = next((values[key] for key in DURATION_KEYS if key in values), None)
    if isinstance(given, list | tuple) or isinstance(given, str) and " " in given.strip():
        durations = _parse_list(given, where)
        if len(durations) != len(units):
            raise ValueError(f"{where}: {len(units)} units and {len(durations)} durations.")
        durations = np.maximum(durations, 1)
        if f0 is not None and len(f0) == len(units):
            f0 = np.repeat(f0, durations)
        units = np.repeat(units, durations)
    if f0 is not None and len(f0) != len(units):
        raise ValueError(f"{where}: {len(units)} units and {len(f0)} values of f0.")
    return units, f0
