"""Splitting prepared audio into train, valid and test, at random or as published: `resynth manifest`."""

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fairseq_resynth.constants import SPLITS, TOKENS
from fairseq_resynth.data.audio.decoding import AUDIO_SUFFIXES
from fairseq_resynth.data.audio.files import audio_length
from fairseq_resynth.data.manifest import write_manifest
from fairseq_resynth.data.pitch.extraction import SHORTEST
from fairseq_resynth.data.storage.files import text_lines, walk_files, write_text
from fairseq_resynth.data.storage.workers import progress
from fairseq_resynth.data.units import parse_dict_line

_SHOWN = 10  # names in a message


def listed(names: Sequence[str]) -> str:
    """The first ten names, one per line, and how many more there are."""
    more = f"\n  … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "\n  " + "\n  ".join(names[:_SHOWN]) + more


def scan(root: str | Path) -> dict[str, int]:
    """The number of samples of every audio file under `root`, by relative path, sorted. Raises ValueError,
    with the names of the files, if there are none, or if some are not 16 kHz mono audio of at least one unit
    frame."""
    root = Path(root)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    files = sorted(
        path.relative_to(root).as_posix()
        for path in walk_files(root)
        if path.suffix.lower() in AUDIO_SUFFIXES
    )
    if not files:
        raise ValueError(f"no audio file under {root}")
    lengths, bad = {}, []
    for name in progress(files, len(files), "manifest"):
        try:
            if set(name) & set("\t\n\r"):
                raise ValueError(f"{root / name!r}: the name has a tab or a line break")
            if not name.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in name):
                raise ValueError(f"{root / name!r}: the name is not UTF-8; rename the file")
            lengths[name] = length = audio_length(root / name)
            if length < SHORTEST:
                raise ValueError(
                    f"{root / name}: found {length} samples, expected {SHORTEST} (a unit frame) or more"
                )
        except (ValueError, OSError) as error:
            bad.append(str(error))
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(files)} files cannot go into a manifest; repair or remove them:{listed(bad)}"
        )
    return lengths


_RULES: dict[str, Callable[[Path], str | None]] = {
    "single": lambda path: "single",
    "parent": lambda path: path.parent.name,
    "grandparent": lambda path: path.parents[1].name if len(path.parents) > 1 else None,
    "prefix": lambda path: path.name.partition("_")[0] if "_" in path.name else None,
}


def _pattern_rule(pattern: str) -> Callable[[str], str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"--speaker-from: {pattern!r} is not a regular expression: {error}"
        ) from error
    if compiled.groups != 1:
        raise ValueError(
            f"--speaker-from: found {compiled.groups} groups in {pattern!r}, expected one that holds the "
            f"speaker's name; or one of {', '.join(_RULES)}"
        )
    return lambda name: match[1] if (match := compiled.search(name)) else None


def speakers_of(
    names: Iterable[str], root: str | Path, speaker_from: str, what: str = "speaker"
) -> dict[str, str]:
    """The speaker of each relative path, by `single`, `parent`, `grandparent` (both count the folder `root`
    too), `prefix` (up to the first underscore), or a regular expression with one group, searched in the path.
    Raises ValueError if it is invalid, or gives no name for some files."""
    base, rule = Path(os.path.abspath(root)), _RULES.get(speaker_from)
    by_name = (lambda name: rule(base / name)) if rule else _pattern_rule(speaker_from)
    speakers = {name: (by_name(name) or "").strip() for name in names}
    if nameless := [name for name, speaker in speakers.items() if not speaker]:
        raise ValueError(
            f"--{what}-from {speaker_from} gives no {what} for {len(nameless)} files:{listed(nameless)}"
        )
    return speakers


def random_splits(
    speakers: Mapping[str, str], valid_percent: float, test_percent: float, seed: int
) -> dict[str, list[str]]:
    """Splits files speaker by speaker, by a hash of seed and path; shares are as near the percentages as
    whole files allow, and every speaker keeps a file in train. Raises ValueError if percentages are out of
    range, or speakers have too few files to fill a split."""
    if min(valid_percent, test_percent) < 0 or valid_percent + test_percent >= 100:
        raise ValueError(
            f"found --valid-percent {valid_percent} and --test-percent {test_percent}, expected 0 or more, "
            "below 100 together"
        )
    queues: dict[str, list[str]] = defaultdict(list)
    for name in sorted(
        speakers, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()
    ):
        queues[speakers[name]].append(name)
    sizes = {speaker: len(queue) for speaker, queue in sorted(queues.items())}
    test = _take(queues, sizes, test_percent, "test")
    valid = _take(queues, sizes, valid_percent, "valid")
    train = sorted(name for queue in queues.values() for name in queue)
    return {"train": train, "valid": valid, "test": test}


def _take(
    queues: dict[str, list[str]], sizes: Mapping[str, int], percent: float, split: str
) -> list[str]:
    """Removes about `percent` % of the files from the queues, by the largest-remainder method; one stays."""
    total = max(round(sum(sizes.values()) * percent / 100), 1 if percent else 0)
    quotas = {speaker: size * percent / 100 for speaker, size in sizes.items()}
    caps = {speaker: len(queues[speaker]) - 1 for speaker in sizes}
    shares = {speaker: min(int(quota), caps[speaker]) for speaker, quota in quotas.items()}
    by_remainder = sorted(
        quotas, key=lambda speaker: (int(quotas[speaker]) - quotas[speaker], speaker)
    )
    while (left := total - sum(shares.values())) > 0:
        growing = [speaker for speaker in by_remainder if shares[speaker] < caps[speaker]]
        if not growing:
            raise ValueError(
                f"{split} would have {total - left} of {total} files, since every speaker must keep one in "
                f"train: lower --{split}-percent, or name speakers more coarsely with --speaker-from"
            )
        for speaker in growing[:left]:
            shares[speaker] += 1
    taken = []
    for speaker, share in shares.items():
        taken += queues[speaker][:share]
        del queues[speaker][:share]
    return sorted(taken)


def read_reference(path: str | Path, known: Container[str] = ()) -> list[str]:
    """The files that a list names: a manifest, `{'audio': …}` lines, `name|…` or `name` lines, or names in
    `known` that contain `|` or have spaces around them. Raises FileNotFoundError if it does not exist, and
    ValueError if a line is malformed or there is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a list of files, one per line")
    lines = text_lines(path)
    # A manifest's first line is its root: the only one without a tab.
    is_manifest = len(lines) > 1 and "\t" in lines[1] and "\t" not in lines[0]
    names = [
        line if line in known else _audio_name(line, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not (is_manifest and number == 1)
    ]
    if not names:
        raise ValueError(f"{path} names no file")
    return names


def _audio_name(line: str, where: str) -> str:
    if not line.lstrip().startswith("{"):
        return line.split("\t")[0].split("|")[0].strip()
    values = parse_dict_line(line, where)
    if "audio" not in values:
        raise ValueError(f"{where}: expected {{'audio': path, …}}, found {line[:80]!r}")
    return values["audio"]


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).suffix else name


def _composed_stem(name: str) -> str:
    """A stem with composed characters: macOS writes `é` as `e` and an accent."""
    return unicodedata.normalize("NFC", PurePosixPath(_bare(name)).name)


class FileFinder:
    """Finds files, which are relative paths, by names that others gave them."""

    def __init__(self, names: Iterable[str]):
        self.names = set(names := list(names))
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        self.by_composed_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.by_path[_bare(name)].append(name)
            self.by_stem[PurePosixPath(_bare(name)).name].append(name)
            self.by_composed_stem[_composed_stem(name)].append(name)

    def candidates(self, reference: str) -> list[str]:
        """The files that a name may mean: by path, by the end of the path, or by stem, without suffixes."""
        # What follows the last dot of a name without a suffix of audio may be a part of it: `take.1`.
        # Windows separates folders by backslashes.
        names = reference, _bare(reference), _bare(reference.replace("\\", "/"))
        found = next(filter(None, map(self._candidates, names)), [])
        return found or self.by_composed_stem.get(_composed_stem(reference), [])

    def _candidates(self, bare: str) -> list[str]:
        if bare in self.by_path:
            return self.by_path[bare]
        same_stem = self.by_stem.get(PurePosixPath(bare).name, [])
        # Lists made elsewhere carry longer paths: data/wavs/english/a.wav is our english/a.flac.
        ends = [name for name in same_stem if bare.endswith("/" + _bare(name))]
        longest = max(map(len, ends), default=0)
        return [name for name in ends if len(name) == longest] or same_stem


def reference_splits(
    names: Iterable[str], references: Mapping[str, str | Path]
) -> dict[str, list[str]]:
    """The sorted relative paths of each split, found by path or else by a stem that only one file has.
    `references` has a list of files for each split; train without a list gets the remaining files. Raises
    ValueError with their names if files are missing, match several, or are in two splits."""
    names = list(names)
    finder = FileFinder(names)
    splits = {split: _resolve(finder, path, split) for split, path in references.items()}
    counts = Counter(name for found in splits.values() for name in set(found))
    if shared := sorted(name for name, count in counts.items() if count > 1):
        raise ValueError(f"{len(shared)} files are in two splits:{listed(shared)}")
    splits.setdefault("train", [name for name in names if name not in counts])
    return {split: sorted(set(found)) for split, found in splits.items()}


def make_splits(
    speakers: Mapping[str, str],
    references: Mapping[str, str | Path],
    valid_percent: float,
    test_percent: float,
    seed: int,
) -> dict[str, list[str]]:
    """The files of each split, by the lists in `references` or, without any, at random."""
    if references:
        return reference_splits(speakers, references)
    return random_splits(speakers, valid_percent, test_percent, seed)


def _resolve(finder: FileFinder, path: str | Path, split: str) -> list[str]:
    found, missing, ambiguous = [], [], []
    for reference in read_reference(path, finder.names):
        candidates = finder.candidates(reference)
        if len(candidates) == 1:
            found += candidates
        elif candidates:
            ambiguous.append(f"{reference}: {', '.join(candidates[:3])}")
        else:
            missing.append(reference)
    problems = [
        f"{len(names)} files of --ref-{split} {path} {what}:{listed(names)}"
        for names, what in ((missing, "are not under the root"), (ambiguous, "match several"))
        if names
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return found


def write_splits(
    root: str | Path,
    outdir: str | Path,
    splits: Mapping[str, Sequence[str]],
    lengths: Mapping[str, int],
    speakers: Mapping[str, str],
    tokens: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """Writes `{split}.tsv`, `{split}.speaker` and some named tokens ({"style": {path: name}}, as `speakers`),
    and removes those of splits that are empty now. Returns sentences for the user: streams made from an
    earlier manifest, names that are not in train."""
    out, notes = Path(outdir), []
    named = {"speaker": speakers, **(tokens or {})}
    for split in SPLITS:
        names = sorted(splits.get(split, []))
        for stream, of_file in named.items():
            path = out / f"{split}.{stream}"
            if names:
                write_text(path, "".join(f"{of_file[name]}\n" for name in names))
            else:
                path.unlink(missing_ok=True)
        tsv = out / f"{split}.tsv"
        before = tsv.read_bytes() if tsv.is_file() else b""
        if names:
            write_manifest(tsv, os.path.abspath(root), [(name, lengths[name]) for name in names])
        else:
            tsv.unlink(missing_ok=True)
        changed = not names or tsv.read_bytes() != before
        for streams in (("units", "f0"), [token for token in TOKENS if token not in named]):
            files = (f"{split}.{stream}" for stream in streams)
            stale = ", ".join(file for file in files if (out / file).exists())
            if stale and changed:
                notes.append(f"{stale} in {out} belong to an earlier manifest; make them again")
    for stream, of_file in named.items():
        of_split = {split: {of_file[name] for name in splits.get(split, [])} for split in SPLITS}
        for split in ("valid", "test"):
            if unseen := ", ".join(sorted(of_split[split] - of_split["train"])):
                notes.append(f"{stream}s of {split} that are not in train: {unseen[:200]}")
    return notes
