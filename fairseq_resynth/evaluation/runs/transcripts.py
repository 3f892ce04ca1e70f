"""What was said, by utterance."""

from collections.abc import Mapping
from pathlib import Path

from fairseq_resynth.data.audio.files import AUDIO_SUFFIXES


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Reads `name<TAB>text` or `name|text` lines; of three or more `|` fields the last one counts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text, no line, a line without a separator, or a name twice, with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give --transcripts a file of name<TAB>text"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    transcripts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, separator, text = line.partition("\t") if "\t" in line else line.partition("|")
        if not separator:
            raise ValueError(f"{path}:{number}: expected name<TAB>text, found {line[:60]!r}")
        name = name.strip()
        if Path(name).suffix.lower() in AUDIO_SUFFIXES:
            name = name[: name.rindex(".")]
        if name in transcripts:
            raise ValueError(f"{path}:{number}: {name} has a transcript already")
        transcripts[name] = text.split("|")[-1].strip() if separator == "|" else text.strip()
    if not transcripts:
        raise ValueError(f"{path} has no transcripts, expected lines of name<TAB>text")
    return transcripts


def transcript_of(transcripts: Mapping[str, str], name: str) -> str | None:
    """Looks up a relative name, then its last component (LJSpeech's list has no folders)."""
    return transcripts.get(name, transcripts.get(name.rsplit("/", 1)[-1]))
