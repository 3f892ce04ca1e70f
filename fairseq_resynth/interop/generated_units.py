"""What unit language models write: fairseq-interactive's log, and GSLM's `sample.py`."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_resynth.interop.unit_files import UnitRow, parse_unit_line

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
