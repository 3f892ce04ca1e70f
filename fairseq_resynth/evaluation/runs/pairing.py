"""Which generated file belongs to which reference: by name, strictly, never by accident."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_resynth.data.audio.files import AUDIO_SUFFIXES
from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.storage.files import read_json


@dataclass(frozen=True)
class Pair:
    """A generated file and its reference.

    Attributes:
        name: the generated file's relative name without suffix.
        generated: the file.
        reference_name: the reference's relative name without suffix.
        reference: the file.
        speaker: whose voice it should be, "" if unknown.
        source_speaker: whose voice the reference is; differs in conversion.
        given: figures known beforehand (bytes, seconds of work), as items of a dict.
    """

    name: str
    generated: Path
    reference_name: str
    reference: Path
    speaker: str = ""
    source_speaker: str = ""
    given: tuple[tuple[str, float], ...] = ()


@dataclass
class Pairing:
    """Pairs, and the names left over on either side."""

    pairs: list[Pair] = field(default_factory=list)
    only_generated: list[str] = field(default_factory=list)
    only_reference: list[str] = field(default_factory=list)


@dataclass
class Collection:
    """Audio files by name.

    Attributes:
        files: relative name without suffix -> file, sorted by name.
        speakers: name -> speaker, where known.
        source: where they come from, for messages.
        given: name -> figures known beforehand, from `given.json` in the folder.
        voices: speakers that none of these files may have, but that speech can be converted to.
    """

    files: dict[str, Path]
    speakers: dict[str, str]
    source: Path
    given: dict[str, dict[str, float]] = field(default_factory=dict)
    voices: frozenset[str] = frozenset()


def read_folder(
    folder: Path, suffixes: frozenset[str] = AUDIO_SUFFIXES, without: Path | None = None
) -> Collection:
    """Collects the audio files under a folder; a first-level subfolder's name is the speaker.

    Args:
        folder: searched with its subfolders.
        suffixes: of the files.
        without: a subfolder to leave out, a report's with audio of its own.

    Raises:
        FileNotFoundError: no such folder, or no audio in it.
        ValueError: two files with one name and different suffixes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    files: dict[str, Path] = {}
    hidden = _inside(folder, without) if without else None
    for path in sorted(folder.rglob("*")):
        # a link to nowhere is a file that cannot be read, to be named, and none that is not there
        if path.suffix.lower() not in suffixes or not (path.is_file() or not path.exists()):
            continue
        if hidden in path.parents:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise ValueError(f"{path} and {files[name].name} have one name; remove either")
        files[name] = path
    if not files:
        raise FileNotFoundError(f"{folder} holds no audio ({' '.join(sorted(suffixes))})")
    speakers = {name: name.split("/")[0] for name in files if "/" in name}
    return Collection(files, speakers, folder, _read_given(folder / "given.json"))


def _inside(folder: Path, other: Path) -> Path | None:
    """Returns `other` as a path that begins with `folder`, or None if it is not in there."""
    root, place = folder.resolve(), other.resolve()
    return folder / place.relative_to(root) if root in place.parents else None


def named_folder(text: str) -> tuple[str, Path]:
    """Returns the label and the folder of `NAME=DIR` or `DIR`, whose own name is then the label.

    Raises:
        ValueError: NAME or DIR is empty.
    """
    if Path(text).is_dir():  # its name may have an equals sign
        return Path(text).resolve().name, Path(text)
    label, separator, place = text.partition("=")
    if not separator:
        return Path(text).resolve().name, Path(text)
    if not label or not place:
        raise ValueError(f"{text!r}: expected NAME=DIR or DIR")
    return label, Path(place)


def _read_given(path: Path) -> dict[str, dict[str, float]]:
    """Reads {name: {figure: number}}; none without the file."""
    given = read_json(path) if path.is_file() else {}
    figures = list(given.values()) if isinstance(given, dict) else [given]
    for figure in figures:
        values = figure.values() if isinstance(figure, dict) else [None]
        if not all(isinstance(value, int | float) for value in values):
            raise ValueError(
                f"{path}: expected {{name: {{figure: number}}}}, found {str(figure)[:60]}; remove the file"
            )
    return given


def read_data(folder: Path, split: str) -> Collection:
    """Collects the rows of a data directory's `{split}.tsv`, `{split}.speaker`, and the voices of all splits.

    Raises:
        FileNotFoundError, ValueError: see `read_manifest`; or a repeated name.
    """
    manifest = read_manifest(folder / f"{split}.tsv")
    names = [Path(manifest.name(row)).as_posix() for row in range(len(manifest))]
    if len(set(names)) < len(names):
        raise ValueError(f"{manifest.source} has rows that differ in their suffix only")
    files = {name: manifest.path(row) for row, name in enumerate(names)}
    speakers = {name: name.split("/")[0] for name in names if "/" in name}
    if (folder / f"{split}.speaker").is_file():
        lines = read_lines(folder / f"{split}.speaker", len(names), "resynth speaker")
        speakers = dict(zip(names, (line.strip() for line in lines), strict=True))
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.speaker")]
    voices = frozenset(line.strip() for text in texts for line in text.splitlines())
    return Collection(dict(sorted(files.items())), speakers, manifest.source, voices=voices)


def read_collection(
    place: str | Path, split: str = "test", without: Path | None = None
) -> Collection:
    """Reads a folder of audio (see `read_folder`), or a data directory if it holds `{split}.tsv`."""
    place = Path(place)
    if (place / f"{split}.tsv").is_file():
        return read_data(place, split)
    if place.is_dir() and any(place.glob("*.tsv")):
        found = ", ".join(sorted(path.stem for path in place.glob("*.tsv")))
        raise FileNotFoundError(f"{place} has no {split}.tsv; choose one of {found} with --split")
    return read_folder(place, without=without)


def check_pattern(pattern: str) -> None:
    """Checks how generated files are said to be called.

    Args:
        pattern: `{name}` stands for the reference's relative name, `{target}` for the speaker
            converted to, everything else for itself: {name}_gen, {name}_{target}, {target}/{name}.

    Raises:
        ValueError: not exactly one `{name}`, more than one `{target}`, or another field.
    """
    fields = re.findall(r"\{(.*?)\}", pattern)
    if fields.count("name") != 1 or fields.count("target") > 1 or set(fields) - {"name", "target"}:
        raise ValueError(
            f"--pattern {pattern!r}: expected {{name}} once and {{target}} at most once, "
            "as in {name}_gen or {name}_{target}"
        )


def _readings(name: str, pattern: str, targets: Iterable[str]) -> list[tuple[str, str]]:
    """All (reference name, target speaker) that a generated file's name can mean."""
    found = []
    for target in targets if "{target}" in pattern else [""]:
        # resynth synthesize writes a speaker's slashes as underscores
        literal = pattern.replace("{target}", target.replace("/", "_"))
        start, _, end = literal.partition("{name}")
        if name.startswith(start) and name.endswith(end) and len(name) > len(start) + len(end):
            found.append((name[len(start) : len(name) - len(end)], target))
    return found


def pair_files(
    generated: Collection,
    reference: Collection,
    pattern: str = "{name}",
    targets: Iterable[str] = (),
) -> Pairing:
    """Pairs generated files with the references that their names say.

    Args:
        generated: what is judged.
        reference: what it is compared with.
        pattern: see `check_pattern`.
        targets: speakers that `{target}` may be, besides those of the references.

    Returns:
        The pairs; a name that can mean two things is left unpaired.

    Raises:
        ValueError: nothing is paired, with a name of each side to compare.
    """
    check_pattern(pattern)
    result, used = Pairing(), set()
    speakers = sorted({*reference.speakers.values(), *reference.voices, *targets})
    for name, path in generated.files.items():
        readings = _readings(name, pattern, speakers)
        readings = [reading for reading in readings if reading[0] in reference.files]
        if len(readings) != 1:
            result.only_generated.append(name)
            continue
        reference_name, target = readings[0]
        used.add(reference_name)
        source = reference.speakers.get(reference_name, "")
        files = path, reference_name, reference.files[reference_name]
        given = tuple(generated.given.get(name, {}).items())
        result.pairs.append(Pair(name, *files, target or source, source, given))
    result.only_reference = [name for name in reference.files if name not in used]
    if not result.pairs:
        raise ValueError(_nothing_paired(generated, reference, pattern))
    return result


def _nothing_paired(generated: Collection, reference: Collection, pattern: str) -> str:
    first, second = next(iter(generated.files)), next(iter(reference.files))
    return (
        f"no file of {generated.source} belongs to one of {reference.source} by the pattern "
        f"{pattern!r}: generated are called like {first!r}, references like {second!r}. Names are "
        "relative to their folder; --pattern {name}_gen, say, allows for what was added to them."
    )
