"""Splitting prepared audio into train, valid and test: what `resynth manifest` does."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fairseq_resynth.data.audio.files import AUDIO_SUFFIXES, audio_length
from fairseq_resynth.data.manifest import SPLITS, write_manifest
from fairseq_resynth.data.pitch.extraction import SHORTEST
from fairseq_resynth.data.storage.files import write_text
from fairseq_resynth.data.storage.workers import progress
from fairseq_resynth.preparation.published_splits import listed


def scan(root: str | Path) -> dict[str, int]:
    """The number of samples of every audio file under `root`, by relative path, sorted.

    Raises ValueError if no audio was found, or if files are not 16 kHz mono audio of at least one unit frame;
    the message names them.
    """
    root = Path(root)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    files = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
    )
    if not files:
        raise ValueError(f"no audio file under {root}")
    lengths, bad = {}, []
    for name in progress(files, len(files), "manifest"):
        try:
            if set(name) & set("\t\n\r"):
                raise ValueError(f"{root / name!r}: the name has a tab or a line break")
            if (length := audio_length(root / name)) < SHORTEST:
                raise ValueError(
                    f"{root / name}: found {length} samples, expected {SHORTEST} (a unit frame) or more"
                )
            lengths[name] = length
        except ValueError as error:
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


def speakers_of(names: Iterable[str], root: str | Path, speaker_from: str) -> dict[str, str]:
    """The speaker of each relative path.

    `speaker_from` is `single`, `parent`, `grandparent` (both count the folder `root` too), `prefix` (the name
    up to the first underscore), or a regular expression with one group, searched in the relative path. Raises
    ValueError if it is invalid, or gives no name for some files.
    """
    base = Path(os.path.abspath(root))
    rule = _RULES.get(speaker_from)
    by_name = (lambda name: rule(base / name)) if rule else _pattern_rule(speaker_from)
    speakers = {name: (by_name(name) or "").strip() for name in names}
    nameless = [name for name, speaker in speakers.items() if not speaker]
    if nameless:
        raise ValueError(
            f"--speaker-from {speaker_from} gives no speaker for {len(nameless)} files:{listed(nameless)}"
        )
    return speakers


def _apportion(total: int, quotas: Mapping[str, float], caps: Mapping[str, int]) -> dict[str, int]:
    """Divides `total` near the quotas, by the largest-remainder method, never above the caps."""
    shares = {key: min(int(quota), caps[key]) for key, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda key: (int(quotas[key]) - quotas[key], key))
    while (left := total - sum(shares.values())) > 0:
        open_keys = [key for key in by_remainder if shares[key] < caps[key]]
        if not open_keys:
            break
        for key in open_keys[:left]:
            shares[key] += 1
    return shares


def random_splits(
    speakers: Mapping[str, str], valid_percent: float, test_percent: float, seed: int
) -> dict[str, list[str]]:
    """Splits files speaker by speaker; every speaker of valid and test keeps a file in train.

    The split of a file depends on a hash of the seed and its path, not on the order of the files. Each
    speaker's share of valid and test is as near the percentage as whole files allow. Raises ValueError if
    percentages are out of range, or speakers have too few files to fill a split.
    """
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
    total = max(round(sum(sizes.values()) * percent / 100), 1 if percent else 0)
    quotas = {speaker: size * percent / 100 for speaker, size in sizes.items()}
    shares = _apportion(total, quotas, {speaker: len(queues[speaker]) - 1 for speaker in sizes})
    if sum(shares.values()) < total:
        raise ValueError(
            f"{split} would have {sum(shares.values())} of {total} files, since every speaker must keep one "
            f"in train: lower --{split}-percent, or name speakers more coarsely with --speaker-from"
        )
    taken = []
    for speaker, share in shares.items():
        taken += queues[speaker][:share]
        del queues[speaker][:share]
    return sorted(taken)


def write_splits(
    root: str | Path,
    outdir: str | Path,
    splits: Mapping[str, Sequence[str]],
    lengths: Mapping[str, int],
    speakers: Mapping[str, str],
) -> list[str]:
    """Writes `{split}.tsv` and `{split}.speaker`, and removes those of splits that are empty now.

    Returns sentences for the user: streams made from an earlier manifest, speakers that are not in train.
    """
    out, notes = Path(outdir), []
    for split in SPLITS:
        names = sorted(splits.get(split, []))
        tsv, speaker_file = out / f"{split}.tsv", out / f"{split}.speaker"
        before = tsv.read_bytes() if tsv.is_file() else b""
        if names:
            write_text(speaker_file, "".join(f"{speakers[name]}\n" for name in names))
            write_manifest(tsv, os.path.abspath(root), [(name, lengths[name]) for name in names])
        else:
            tsv.unlink(missing_ok=True)
            speaker_file.unlink(missing_ok=True)
        stale = [
            f"{split}.{stream}"
            for stream in ("units", "f0")
            if (out / f"{split}.{stream}").exists()
        ]
        if stale and (not names or tsv.read_bytes() != before):
            notes.append(
                f"{', '.join(stale)} in {out} belong to an earlier manifest; make them again"
            )
    of_split = {split: {speakers[name] for name in splits.get(split, [])} for split in SPLITS}
    for split in ("valid", "test"):
        if unseen := ", ".join(sorted(of_split[split] - of_split["train"])):
            notes.append(f"speakers of {split} that are not in train: {unseen[:200]}")
    return notes
