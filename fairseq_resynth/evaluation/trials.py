"""Lists of speaker verification trials: which utterances are scored against which enrolled speakers."""

from collections.abc import Collection, Mapping
from pathlib import Path

Trials = dict[str, set[str]]


def read_trials(path: str | Path) -> Trials:
    """Reads `utterance<TAB>speaker` lines; an utterance has a line for each speaker it is scored against.

    Whether a trial is a target trial follows from the voice that the utterance should have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text, no line, a malformed line, or a trial twice, with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give --trials a file of utterance<TAB>speaker"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    trials: Trials = {}
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split("\t")]
        if fields == [""]:
            continue
        if len(fields) != 2 or not all(fields):
            raise ValueError(
                f"{path}:{number}: expected utterance<TAB>speaker, found {line[:60]!r}"
            )
        speakers = trials.setdefault(fields[0], set())
        if fields[1] in speakers:
            raise ValueError(f"{path}:{number}: the trial of {line[:60]!r} is there already")
        speakers.add(fields[1])
    if not trials:
        raise ValueError(f"{path} has no trials, expected lines of utterance<TAB>speaker")
    return trials


def check_trials(
    trials: Mapping[str, Collection[str]], names: Collection[str], speakers: Collection[str]
) -> None:
    """Checks that a list is about what is measured.

    Args:
        trials: of `read_trials`.
        names: of the generated utterances.
        speakers: that can be enrolled.

    Raises:
        ValueError: an utterance or a speaker that there is not.
    """
    for what, listed, known in (
        ("utterances", trials, names),
        ("speakers", set().union(*trials.values()), speakers),
    ):
        unknown = sorted(set(listed) - set(known))
        if unknown:
            raise ValueError(
                f"--trials names {len(unknown)} {what} that there are not: {', '.join(unknown[:5])}; "
                f"expected such as {', '.join(sorted(known)[:5])}"
            )
