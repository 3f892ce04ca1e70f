"""Names of the rows of published speaker and style tables."""

from collections.abc import Sequence
from pathlib import Path

from fairseq_resynth.preparation.manifest import speakers_of
from fairseq_resynth.preparation.published_splits import read_reference

DEFAULT_SPEAKERS = 200  # rows of the table when the configuration does not say


def read_names(path: str | Path) -> tuple[str, ...]:
    """Reads names, one a line, in the order of a table's rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no name, an empty line or a repeated name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, expected a name a line.")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError(f"{path}: expected different names, one a line, and no empty line.")
    return tuple(names)


_RULES = {"_": "prefix", "parent_name": "parent", "parent_parent_name": "grandparent"}


def names_of_list(path: str | Path, multispkr: str) -> tuple[str, ...]:
    """Returns a training list's speakers in the order in which the original numbers them.

    Args:
        path: `{'audio': …}` lines.
        multispkr: the configuration's rule.

    Raises:
        FileNotFoundError, ValueError: no such list, or a rule that paths do not answer.
    """
    if multispkr == "single":
        return ("single",)
    if multispkr not in _RULES:
        raise ValueError(
            f"multispkr is {multispkr!r}, which a list of paths does not answer: give --speakers."
        )
    files = read_reference(path)
    return tuple(sorted(set(speakers_of(files, "", _RULES[multispkr]).values())))


def table_names(given: Sequence[str] | None, rows: int, what: str, source: Path) -> tuple[str, ...]:
    """Returns the names of a table's rows: those given, or 0, 1, 2, …

    Raises:
        ValueError: more names than rows.
    """
    if given is None:
        return tuple(map(str, range(rows)))
    if len(given) > rows:
        raise ValueError(f"{len(given)} {what} are named, {source} has {rows} rows for them.")
    return tuple(given)
