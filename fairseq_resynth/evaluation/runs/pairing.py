"""The input of an evaluation: audio files, paired strictly by their names, and what was said in them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_resynth.data.audio.decoding import AUDIO_SUFFIXES
from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.storage.files import misfit, read_json, text_lines
from fairseq_resynth.data.storage.messages import first_names, shown

Trials = dict[str, set[str]]  # utterance -> the speakers that it is scored against


@dataclass(frozen=True)
class Pair:
    """A generated file of a system, and its reference; names are relative and without suffix."""

    name: str  # of the generated file
    generated: Path
    reference_name: str
    reference: Path
    speaker: str = ""  # the speaker that the generated speech should sound like, "" if unknown
    source_speaker: str = ""  # the speaker of the reference; it differs in conversion
    # figures known from generation (bytes, seconds of work), as the items of a dictionary
    given: tuple[tuple[str, float], ...] = ()
    system: str = ""  # of the system `reference`, both files are the recording
    transcript: str | None = None


@dataclass
class Collection:
    """Audio files by name."""

    files: dict[str, Path]  # relative name without suffix -> file, sorted by name
    speakers: dict[str, str]  # name -> speaker, where known
    source: Path  # folder or manifest that they come from, for messages
    # name -> figures known from generation, from `given.json` in the folder
    given: dict[str, dict[str, float]] = field(default_factory=dict)
    voices: frozenset[str] = frozenset()  # further speakers that speech can be converted to


def read_folder(
    folder: Path, suffixes: frozenset[str] = AUDIO_SUFFIXES, without: Path | None = None
) -> Collection:
    """Collects the audio files under a folder; a first-level subfolder's name is the speaker.

    `without` is a subfolder to leave out, such as that of a report, which has its own audio. Raises
    FileNotFoundError if there is no folder or no audio in it, and ValueError for two files whose
    names differ in their suffix only.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    files: dict[str, Path] = {}
    hidden = None
    if without and folder.resolve() in without.resolve().parents:
        hidden = folder / without.resolve().relative_to(folder.resolve())
    for path in sorted(folder.rglob("*")):
        # a broken link counts as a file, so that it is reported as one that cannot be read
        is_file = path.is_file() or not path.exists()
        if path.suffix.lower() not in suffixes or not is_file or hidden in path.parents:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            other = files[name].name
            raise ValueError(f"{path} and {other} have the same name; remove one of them")
        files[name] = path
    if not files:
        raise FileNotFoundError(f"{folder} has no audio ({' '.join(sorted(suffixes))})")
    speakers = {name: name.split("/")[0] for name in files if "/" in name}
    return Collection(files, speakers, folder, _read_given(folder / "given.json"))


def named_folder(text: str) -> tuple[str, Path]:
    """The label and the folder of `NAME=DIR`, or of `DIR`, whose own name is then the label. Raises
    ValueError if NAME or DIR is empty."""
    label, separator, place = text.partition("=")
    if not separator or Path(text).is_dir():  # a folder's own name may have an equals sign
        return Path(text).resolve().name, Path(text)
    if not label or not place:
        raise ValueError(f"{text!r}: expected NAME=DIR or DIR")
    return label, Path(place)


def _read_given(path: Path) -> dict[str, dict[str, float]]:
    """Reads {name: {figure: number}}; empty without the file."""
    given = read_json(path) if path.is_file() else {}
    if wrong := misfit(given, {str: {str: int | float}}):
        raise ValueError(
            f"{path}: expected {{name: {{figure: number}}}}, found {wrong}; remove the file"
        )
    return given


def read_data(folder: Path, split: str) -> Collection:
    """Collects the recordings and speakers of a split of a data directory, and the voices of all splits.
    Raises FileNotFoundError or ValueError for a missing or malformed manifest, or a repeated name."""
    manifest = read_manifest(folder / f"{split}.tsv")
    names = [Path(manifest.name(row)).as_posix() for row in range(len(manifest))]
    if len(set(names)) < len(names):
        raise ValueError(f"{manifest.source} has rows that differ in their suffix only")
    files = {name: manifest.path(row) for row, name in enumerate(names)}
    speakers = {name: name.split("/")[0] for name in names if "/" in name}
    if (folder / f"{split}.speaker").is_file():
        lines = read_lines(folder / f"{split}.speaker", len(names), "resynth manifest")
        speakers = dict(zip(names, (line.strip() for line in lines), strict=True))
    lists = folder.glob("*.speaker")
    voices = frozenset(line.strip() for file in lists for line in text_lines(file))
    return Collection(dict(sorted(files.items())), speakers, manifest.source, voices=voices)


def read_collection(
    place: str | Path, split: str = "test", without: Path | None = None
) -> Collection:
    """Reads a folder of audio, or a data directory if it has `{split}.tsv`."""
    place = Path(place)
    if (place / f"{split}.tsv").is_file():
        return read_data(place, split)
    if place.is_dir() and any(place.glob("*.tsv")):
        found = ", ".join(sorted(path.stem for path in place.glob("*.tsv")))
        raise FileNotFoundError(f"{place} has no {split}.tsv; choose one of {found} with --split")
    return read_folder(place, without=without)


def _readings(name: str, pattern: str, targets: Iterable[str]) -> list[tuple[str, str]]:
    """All pairs of reference name and target speaker that a generated file's name can mean."""
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
    transcripts: Mapping[str, str] | None = None,
    system: str = "",
) -> tuple[list[Pair], dict[str, list[str]]]:
    """Pairs the files that a system generated with the references that their names refer to.

    By the `pattern` they are called {name}_gen, {name}_{target} or {target}/{name} for instance, where
    `{name}` is the reference's relative name and `{target}` a speaker of the references or of `targets`.
    `transcripts` are by name of the reference.

    Returns the pairs, and the names without a partner, `only_generated` and `only_reference`; an ambiguous
    name is left without one. Raises ValueError with a name of each side if nothing is paired, or if the
    pattern has not exactly one `{name}`, more than one `{target}`, or another field.
    """
    fields = re.findall(r"\{(.*?)\}", pattern)
    if fields.count("name") != 1 or fields.count("target") > 1 or set(fields) - {"name", "target"}:
        raise ValueError(
            f"--pattern {pattern!r}: expected {{name}} once and {{target}} at most once, "
            "as in {name}_gen or {name}_{target}"
        )
    pairs, alone = [], []
    speakers = sorted({*reference.speakers.values(), *reference.voices, *targets})
    for name, path in generated.files.items():
        readings = _readings(name, pattern, speakers)
        readings = [reading for reading in readings if reading[0] in reference.files]
        if len(readings) != 1:
            alone.append(name)
            continue
        original, target = readings[0]
        source = reference.speakers.get(original, "")
        files = path, original, reference.files[original]
        given = tuple(generated.given.get(name, {}).items())
        words = transcript_of(transcripts or {}, original)
        pairs.append(Pair(name, *files, target or source, source, given, system, words))
    if not pairs:
        first, second = next(iter(generated.files)), next(iter(reference.files))
        raise ValueError(
            f"no file of {generated.source} belongs to one of {reference.source} by the pattern "
            f"{pattern!r}: generated are called like {first!r}, references like {second!r}; give "
            "--pattern, {name}_gen for instance, if something was added to the relative name."
        )
    used = {pair.reference_name for pair in pairs}
    rest = [name for name in reference.files if name not in used]
    return pairs, {"only_generated": alone, "only_reference": rest}


def _lines(path: Path, option: str, expected: str) -> Iterator[tuple[str, str]]:
    """Yields each line that is not blank, after its place (file and line number) for messages."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give {option} a file of {expected}")
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            yield f"{path}:{number}", line


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Reads `name<TAB>text` or `name|text` lines; of three or more `|` fields the last one counts. Raises
    FileNotFoundError, or ValueError for an empty file or one that is not text, a line without a separator,
    or a repeated name."""
    transcripts: dict[str, str] = {}
    for place, line in _lines(Path(path), "--transcripts", "name<TAB>text"):
        name, separator, text = line.partition("\t") if "\t" in line else line.partition("|")
        if not separator:
            raise ValueError(f"{place}: expected name<TAB>text, found {line[:60]!r}")
        name = name.strip()
        if Path(name).suffix.lower() in AUDIO_SUFFIXES:
            name = name[: name.rindex(".")]
        if name in transcripts:
            raise ValueError(f"{place}: {shown(name)} has a transcript already")
        transcripts[name] = text.split("|")[-1].strip() if separator == "|" else text.strip()
    if not transcripts:
        raise ValueError(f"{path} has no transcripts, expected lines of name<TAB>text")
    return transcripts


def transcript_of(transcripts: Mapping[str, str], name: str) -> str | None:
    """Looks up a relative name, then its last component (LJSpeech's list has no folders)."""
    return transcripts.get(name, transcripts.get(name.rsplit("/", 1)[-1]))


def read_trials(path: str | Path) -> Trials:
    """Reads `utterance<TAB>speaker` lines, one per speaker that an utterance is scored against. Whether a
    trial is a target trial follows from the voice that the utterance should have. Raises FileNotFoundError,
    or ValueError for an empty file or one that is not text, or for a malformed or repeated line."""
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


def check_trials(trials: Trials, names: Iterable[str], speakers: Iterable[str]) -> None:
    """Raises ValueError if trials name an utterance or a speaker that is not known."""
    listed = ("utterances", trials, names), ("speakers", set().union(*trials.values()), speakers)
    for what, found, known in listed:
        if unknown := sorted(set(found) - set(known)):
            raise ValueError(
                f"--trials names {len(unknown)} unknown {what}: {first_names(unknown, 5)}; "
                f"expected names such as {first_names(sorted(known), 5)}"
            )
