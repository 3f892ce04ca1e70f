"""Published splits: lists of files are read, and each file is found under another root."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fairseq_resynth.data.unit_text import parse_dict_line

_SHOWN = 10  # names in a message


def listed(names: Sequence[str]) -> str:
    """The first ten names, one per line, and how many more there are."""
    more = f"\n  … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "\n  " + "\n  ".join(names[:_SHOWN]) + more


def read_reference(path: str | Path) -> list[str]:
    """The files that a list names: a manifest, `{'audio': …}` lines, `name|…` or `name` lines.

    Raises FileNotFoundError if it does not exist, and ValueError if a line is malformed or there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a list of files, one per line")
    lines = path.read_text(encoding="utf-8").splitlines()
    # A manifest's first line is its root: the only one without a tab.
    is_manifest = len(lines) > 1 and "\t" in lines[1] and "\t" not in lines[0]
    names = [
        _audio_name(line, f"{path}:{number}")
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


class FileFinder:
    """Finds files, which are relative paths, by names that others gave them."""

    def __init__(self, names: Iterable[str]):
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.by_path[_bare(name)].append(name)
            self.by_stem[PurePosixPath(_bare(name)).name].append(name)

    def candidates(self, reference: str) -> list[str]:
        """The files that a name may mean: by path, by the end of the path, or by stem, without suffixes."""
        bare = _bare(reference)
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
    ValueError with their names if files are missing, match several, or are in two splits.
    """
    names = list(names)
    finder = FileFinder(names)
    splits = {split: _resolve(finder, path, split) for split, path in references.items()}
    counts = Counter(name for found in splits.values() for name in set(found))
    shared = sorted(name for name, count in counts.items() if count > 1)
    if shared:
        raise ValueError(f"{len(shared)} files are in two splits:{listed(shared)}")
    if "train" not in splits:
        splits["train"] = [name for name in names if name not in counts]
    return {split: sorted(set(found)) for split, found in splits.items()}


def _resolve(finder: FileFinder, path: str | Path, split: str) -> list[str]:
    found, missing, ambiguous = [], [], []
    for reference in read_reference(path):
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
