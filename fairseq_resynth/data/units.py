"""Unit sequences: `{split}.units` and `{split}.f0` of a data directory, and lines of other tools.

The lines of a data directory's files are those of its manifest. The format of any other line is recognized
by its content:

    1 2 3                                       HuBERT, `resynth quantize`
    name|1 2 3                                  GSLM
    name<TAB>1,2,3                              CPC
    name 1 2 3                                  Kaldi, ESPnet; a name of digits alone would be a unit
    [1, 2, 3]                                   a list of Python or JSON; may follow a name
    {'audio': 'a.wav', 'hubert': '1 2 3', …}    speech-resynthesis, pGSLM; parsed as a literal
    {"audio": "a.wav", "units": [1, 2, 3], …}   unit-hifigan, slamkit; JSON
    [St7][Pi15][Hu1][Hu2] or <Un1><Un2>         SpiritLM, slamkit; may follow a name, or be in a dict
    H-0<TAB>-0.5<TAB>1 2 3                      a log of fairseq-interactive; other lines are skipped
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import TOKENS
from fairseq_resynth.data.packed import FlatRows, packed_integers
from fairseq_resynth.data.storage.files import open_utf8
from fairseq_resynth.data.storage.messages import one_line, shown
from fairseq_resynth.data.storage.text_columns import (
    DIGITS,
    parse_integer_lines,
    whole_line_blocks,
)

# Keys of the units in a dict line, in the order in which the original looks for them.
UNIT_KEYS = ("cpc_km100", "vqvae256", "hubert", "hubert_km100", "units", "codes", "audio_repr")
DURATION_KEYS = ("durations", "duration", "dur")  # pGSLM's, in frames per unit; a number is seconds
UNIT_TOKENS = ("Hu", "Un")  # in token strings of SpiritLM and slamkit; there Pi is pitch, St style
_TOKEN = re.compile(r"\[([A-Za-z]+)(\d{1,18})\]|<([A-Za-z]+)(\d{1,18})>")
_LIST = re.compile(r"\s*\[([\d,\s]*)\]\s*")
# The name needs a letter, which a second pattern looks for: in one, they take hours for a long word.
_NAMED = re.compile(r"\s*([^\s<\[({]+)((?:[ ]+\d+)+)\s*")
_LETTER = re.compile(r"[^\W\d_]")
# Encoders do not encode up to this many samples at the end of an utterance (a HuBERT frame spans 25 ms).
MAX_UNCOVERED = 800  # samples, 50 ms
# What run lengths may claim for one utterance: a day at 100 Hz.
MAX_FRAMES = 8_640_000


def do_not_fit(num_units: np.ndarray, num_samples: np.ndarray, unit_hop: int) -> np.ndarray:
    """Which rows, (n,) bool, have units that their recordings cannot have: an excess of a unit or more, or
    `MAX_UNCOVERED` and a unit too few."""
    uncovered = num_samples - num_units * unit_hop
    return (uncovered >= MAX_UNCOVERED + unit_hop) | (uncovered <= -unit_hop)


@dataclass(frozen=True)
class UnitRow:
    """One utterance of a unit file; the fields after `name` are of dict lines, tables and token strings."""

    units: np.ndarray  # (U,) int64
    line: int  # its number in the file, from 1
    name: str | None = None  # the text before `|` or the tab, or the audio path without its suffix
    audio: str | None = None  # path of the recording
    speaker: str | None = None  # name of the speaker
    f0: np.ndarray | None = None  # (U,) pitch: integers are codes, other numbers normalized F0
    tokens: dict[str, str] = field(default_factory=dict)  # named tokens: {"style": "sad"}
    token_string: bool = False  # whether the units were one; there runs are usually collapsed

    @property
    def label(self) -> str:
        """The name, or `line_N` if the row has none."""
        return self.name or f"line_{self.line}"


def parse_integers(text: str, where: str) -> np.ndarray:
    """Parses non-negative integers separated by spaces into (n,) int64. Raises ValueError, beginning with
    `where` (file:line), if a word is something else."""
    words = text.split()
    for word in words:
        # int() also takes 1_000, +1 and digits of other scripts
        if not (word.isascii() and word.isdigit() and len(word) <= DIGITS):
            raise ValueError(
                f"{where}: expected integers from 0 on, separated by spaces, found {word[:40]!r}"
            )
    return np.array([int(word) for word in words], dtype=np.int64)


def parse_dict_line(line: str, where: str) -> dict[str, Any]:
    """Parses a dict line as JSON or as a literal; it is never evaluated. Raises ValueError, beginning with
    `where`, if it is not a dict of plain values, or `audio` is not a string."""
    expected = f"{where}: expected {{'audio': path, …}}"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{expected} of plain values: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{expected}, found {line.strip()[:80]!r}")
    if not isinstance(values.get("audio", ""), str):
        raise ValueError(f"{where}: expected a path under 'audio', found {values['audio']!r}")
    return values


def parse_line(line: str, where: str, number: int, key: str = "") -> UnitRow:
    """Parses one line of a unit file. `key` names the key of the units in a dict line, or the kind of their
    tokens (`Hu`) in a token string. Raises ValueError, beginning with `where`, if it is of no known format.
    """
    if line.lstrip().startswith("{"):
        return parse_values(parse_dict_line(line, where), where, number, key)
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
    if listed := _LIST.fullmatch(text):
        text = listed[1].replace(",", " ")
    if _is_token_string(text):
        return replace(_parse_token_string(text, where, number, key), name=name or None)
    if not name and (named := _NAMED.fullmatch(text)) and _LETTER.search(named[1]):
        name, text = named[1], named[2]
    return UnitRow(parse_integers(text, where), number, name or None)


def parse_values(values: Mapping[str, Any], where: str, number: int, key: str = "") -> UnitRow:
    """The utterance of a dict line or of a row of a table, whose units are under `key` (default: the first of
    `UNIT_KEYS`). Raises ValueError, beginning with `where`, if it has none, or values contradict each other.
    """
    expected = (key,) if key else UNIT_KEYS
    found = next((known for known in expected if known in values), None)
    if found is None:
        raise ValueError(
            f"{where}: expected one of the keys {', '.join(expected)}, found {shown(', '.join(values))}; "
            "--units-key KEY names that of the units."
        )
    units = values[found]
    if _is_token_string(units):
        row = _parse_token_string(units, where, number)
    else:
        row = _parse_frames(units, values, where, number)
    audio = values.get("audio", values.get("file_name"))
    audio = audio.get("path") if isinstance(audio, Mapping) else audio  # datasets.Audio
    if not isinstance(audio, str | None):
        raise ValueError(f"{where}: expected the path of a recording, found {audio!r}.")
    name = str(Path(audio).with_suffix("")) if audio else values.get("id", values.get("name"))
    speaker = values.get("spk", values.get("speaker"))
    given = {token: values[token] for token in TOKENS if values.get(token) is not None}
    return replace(
        row,
        name=None if name is None else str(name),
        audio=audio,
        speaker=None if speaker is None else str(speaker),
        tokens={**row.tokens, **{token: _one_name(str(name)) for token, name in given.items()}},
    )


def _parse_frames(units: Any, values: Mapping[str, Any], where: str, number: int) -> UnitRow:
    """Units as numbers, with the `f0` and the durations that `values` have of them."""
    units, f0 = _parse_list(units, where), _parse_f0(values.get("f0"), where)
    given = next((values[key] for key in DURATION_KEYS if key in values), None)
    if isinstance(given, list | tuple) or isinstance(given, str) and " " in given.strip():
        # Run lengths instead of frames; a number would be seconds.
        durations = np.maximum(_parse_list(given, where), 1)
        if len(durations) != len(units):
            raise ValueError(f"{where}: {len(units)} units and {len(durations)} durations.")
        if (total := durations.sum(dtype=float)) > MAX_FRAMES:
            raise ValueError(
                f"{where}: durations of {total:.0f} frames, expected {MAX_FRAMES} at most."
            )
        if f0 is not None and len(f0) == len(units):
            f0 = np.repeat(f0, durations)
        units = np.repeat(units, durations)
    if f0 is not None and len(f0) != len(units):
        raise ValueError(f"{where}: {len(units)} units and {len(f0)} values of f0.")
    return UnitRow(units, number, f0=f0)


def _is_token_string(units: Any) -> bool:
    return isinstance(units, str) and units.lstrip().startswith(("[", "<"))


def _parse_token_string(text: str, where: str, number: int, kind: str = "") -> UnitRow:
    """Parses `[St7][Pi15][Hu1][Hu2]` or `<Un1><Un2>`; `kind` names the tokens of the units. A pitch holds
    until the next one, and the first also before it."""
    words = re.split(r"(?<=[\]>])\s*", text.strip().removeprefix("[Speech]").strip())
    found = []
    for place, word in enumerate(filter(None, words), 1):
        match = _TOKEN.fullmatch(word)
        if match is None:
            raise ValueError(
                f"{where}: expected tokens like [Hu12] or <Un12>, found {word[:40]!r} in place {place}."
            )
        found.append((match[1] or match[3], match[2] or match[4]))
    kinds = {kind for kind, _ in found}
    units_of = {kind} if kind else kinds & set(UNIT_TOKENS)
    if len(units_of) > 1:
        raise ValueError(
            f"{where}: found the tokens {' and '.join(sorted(units_of))}: --units-key KIND names the units'."
        )
    if foreign := sorted(kinds - units_of - {"Pi", "St"}):
        raise ValueError(
            f"{where}: found tokens {', '.join(foreign)}, expected those of units "
            f"({' or '.join(units_of or UNIT_TOKENS)}), Pi and St; --units-key KIND names those of units."
        )
    pitches = [value for name, value in found if name == "Pi"]
    units, pitch, last = [], [], pitches[0] if pitches else "0"
    for name, value in found:
        if name == "Pi":
            last = value
        elif name in units_of:
            units.append(value)
            pitch.append(last)
    style = _one_name(" ".join(value for name, value in found if name == "St"))
    return UnitRow(
        np.array(units, dtype=np.int64),
        number,
        f0=np.array(pitch, dtype=np.int64) if pitches else None,
        tokens={"style": style} if style else {},
        token_string=True,
    )


def _one_name(name: str) -> str:
    """A name, or the one number of SpiritLM's style per second. Numbers that differ stay, and since no model
    knows such a style, `--style` is asked for."""
    words = dict.fromkeys(name.split())
    return name if len(words) != 1 or not name.replace(" ", "").isdigit() else next(iter(words))


def as_frames(units: np.ndarray, codebooks: int, where: str) -> np.ndarray:
    """(T, codebooks) of tokens, from (T * codebooks,) with the codebooks of a frame one after the other, or
    from an array whose first or second dimension are the codebooks. Raises ValueError, beginning with
    `where`, for any other shape."""
    if units.ndim == 1 and len(units) % codebooks == 0:
        return units.reshape(-1, codebooks)
    if units.ndim == 2 and units.shape[1] == codebooks:
        return units
    if units.ndim == 2 and units.shape[0] == codebooks:
        return units.T
    raise ValueError(
        f"{where}: found tokens of shape {units.shape}, expected whole frames of {codebooks} codebooks; "
        "--codebooks says how many a frame has."
    )


def _parse_list(values: Any, where: str) -> np.ndarray:
    if isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple):
        rows = [_parse_list(row, where) for row in values]  # frames of several codebooks
        if len({row.shape for row in rows}) > 1 or rows[0].ndim > 1:
            raise ValueError(f"{where}: expected lists of one length, one token per codebook.")
        return np.stack(rows)
    if not isinstance(values, str | list | tuple):
        raise ValueError(f"{where}: expected a list of integers, found {values!r}.")
    return parse_integers(values if isinstance(values, str) else " ".join(map(str, values)), where)


def _parse_f0(values: Any, where: str) -> np.ndarray | None:
    if values is None:
        return None
    try:
        f0 = np.asarray(values.split() if isinstance(values, str) else values)
        if f0.ndim != 1:
            raise ValueError(f"found an array of shape {f0.shape}")
        return f0 if np.issubdtype(f0.dtype, np.integer) else f0.astype(np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{where}: expected a list of numbers for f0: {one_line(error)}"
        ) from error


class IntegerRows(FlatRows):
    """Rows of integers, the largest of which is `maximum`, -1 if there are none (None: it is computed)."""

    def __init__(self, values: Any, lengths: np.ndarray, maximum: int | None = None):
        super().__init__(values, lengths)
        self.maximum = int(values.max(initial=-1)) if maximum is None else maximum


def read_integer_rows(path: str | Path, rows: int | None, made_by: str) -> IntegerRows:
    """Reads `{split}.units` or `{split}.f0` with `rows` lines (None: any), as text or packed; messages name
    the command `made_by`. Raises FileNotFoundError if the file does not exist, and ValueError if it has
    another number of lines, or a line that is not integers."""
    path = Path(path)
    packed = packed_integers(path)
    found = IntegerRows(*packed) if packed else _read_integer_lines(path, made_by)
    if rows is not None and len(found) != rows:
        raise ValueError(
            f"{path} has {len(found)} lines, its manifest {rows} rows. Make it again with `{made_by}`."
        )
    return found


def _read_integer_lines(path: Path, made_by: str) -> IntegerRows:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `{made_by}`.")
    lengths, end, blank = [np.zeros(0, dtype=np.int64)], 0, b""
    # As many integers as the file could hold: memory that is never written to is never allocated.
    values = np.empty(path.stat().st_size // 2 + 1, dtype=np.int16)
    with open_utf8(path) as stream:
        for block in whole_line_blocks(stream):
            block = blank + block
            filled = block.rstrip()  # blank lines at the end of the file do no harm
            blank = block[len(filled) :].partition(b"\n")[2]
            if not filled:
                continue
            parsed = parse_integer_lines(filled)
            if parsed is None:
                raise _line_error(filled, path, sum(map(len, lengths)) + 1, made_by)
            # The first type that also holds the largest integer.
            fits = np.promote_types(np.min_scalar_type(-int(parsed[0].max()) - 1), values.dtype)
            values = values.astype(fits, copy=False)
            values[end : end + len(parsed[0])] = parsed[0]
            end += len(parsed[0])
            lengths.append(parsed[1])
    return IntegerRows(values[:end], np.concatenate(lengths))


def _line_error(block: bytes, path: Path, first: int, made_by: str) -> ValueError:
    """The error of the first line of a block that is not integers."""
    remake = f"Make the file with `{made_by}`."
    for number, line in enumerate(block.decode("utf-8", "replace").splitlines(), first):
        if not line.strip():
            return ValueError(f"{path}:{number}: the line is empty. {remake}")
        parse_integers(line, f"{path}:{number}")
    return ValueError(f"{path}:{first}: expected lines of integers. {remake}")


def format_integers(values: Sequence[int] | np.ndarray) -> str:
    """Formats integers as one line of a stream file, without the line break."""
    return " ".join(map(str, np.asarray(values).tolist()))


def collapse_runs(units: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapses (U,) integers: (units without repeats, number of repeats of each), (R,) int64 both."""
    units = np.asarray(units, dtype=np.int64)
    starts = np.flatnonzero(np.diff(units, prepend=units[:1] - 1))
    return units[starts], np.diff(starts, append=len(units))
