"""Text files beside the audio: what was said, and the trials of speaker verification."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from fairseq_resynth.data.audio.files import AUDIO_SUFFIXES

Trials = dict[str, set[str]]


def _lines(path: Path, option: str, expected: str) -> Iterator[tuple[str, str]]:
    """Yields each line that is not blank, after its place (file and line number) for messages."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give {option} a file of {expected}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}:{number}", line


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Reads `name<TAB>text` or `name|text` lines; of three or more `|` fields the last one counts.

    Raises FileNotFoundError, or ValueError for an empty file or one that is not text, a line
    without a separator, or a repeated name.
    """
    transcripts: dict[str, str] = {}
    for place, line in _lines(Path(path), "--transcripts", "name<TAB>text"):
        name, separator, text = line.partition("\t") if "\t" in line else line.partition("|")
        if not separator:
            raise ValueError(f"{place}: expected name<TAB>text, found {line[:60]!r}")
        name = name.strip()
        if Path(name).suffix.lower() in AUDIO_SUFFIXES:
            name = name[: name.rindex(".")]
        if name in transcripts:
            raise ValueError(f"{place}: {name} has a transcript already")
        transcripts[name] = text.split("|")[-1].strip() if separator == "|" else text.strip()
    if not transcripts:
        raise ValueError(f"{path} has no transcripts, expected lines of name<TAB>text")
    return transcripts


def transcript_of(transcripts: Mapping[str, str], name: str) -> str | None:
    """Looks up a relative name, then its last component (LJSpeech's list has no folders)."""
    return transcripts.get(name, transcripts.get(name.rsplit("/", 1)[-1]))


def read_trials(path: str | Path) -> Trials:
    """Reads `utterance<TAB>speaker` lines, one per speaker that an utterance is scored against.

    Whether a trial is a target trial follows from the voice that the utterance should have. Raises
    FileNotFoundError, or ValueError for an empty file or one that is not text, or for a malformed
    or repeated line.
    """
    trials: Trials = {}
    for place, line in _lines(Path(path), "--trials", "utterance<TAB>speaker"):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2 or not all(fields):
            raise ValueError(f"{place}: expected utterance<TAB>speaker, found {line[:60]!r}")
        speakers = trials.setdefault(fields[0], set())
        if fields[1] in speakers:
            raise ValueError(f"{place}: the trial {line[:60]!r} occurs twice")
        speakers.add(fields[1])
    if not trials:
        raise ValueError(f"{path} has no trials, expected lines of utterance<TAB>speaker")
    return trials


def check_trials(trials: Trials, names: Collection[str], speakers: Collection[str]) -> None:
    """Raises ValueError if trials name an utterance or a speaker that is not known."""
    for what, listed, known in (
        ("utterances", trials, names),
        ("speakers", set().union(*trials.values()), speakers),
    ):
        unknown = sorted(set(listed) - set(known))
        if unknown:
            raise ValueError(
                f"--trials names {len(unknown)} unknown {what}: {', '.join(unknown[:5])}; "
                f"expected names such as {', '.join(sorted(known)[:5])}"
            )
