"""Any audio to 16 kHz mono files in the same folders: what `resynth preprocess` does.

Of a file whose channels are separate speakers, `a/call.wav`, each channel can become a file of its own in a
folder of its own, `a/call_1/call_1.flac`, so that `resynth manifest --speaker-from parent` names the channel.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import (
    AUDIO_SUFFIXES,
    SILENT_DB,
    are_uncorrelated,
    channel_levels,
    check_channel,
    choose_channels,
    decode,
)
from fairseq_resynth.data.audio.files import pad_to_multiple, resample, write_audio
from fairseq_resynth.data.pitch.extraction import SHORTEST
from fairseq_resynth.data.storage.files import misfit, walk_files
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.workers import parallel_map, progress, skip

PAD_MULTIPLE = 1280  # samples: a whole number of F0 codes, and of unit frames at either hop
_NOTES = ("clipped", "silent_channels", "uncorrelated", "truncated", "silent", "offset")
_KEPT = {"files": [str], "notes": [str]}  # what is recorded of a source
TRIM_DB, TRIM_FRAME, TRIM_HOP = 20, 2048, 512  # dB below the loudest frame, and samples of a frame


@dataclass(frozen=True)
class PreprocessOptions:
    """How files change: `pad` to whole F0 codes, `trim` trailing silence, `format` flac or wav, `channel`
    left, right, a number from 1, mean or each; `accept_truncated` takes what a file that is cut off has."""

    pad: bool = False
    trim: bool = False
    format: str = "flac"
    channel: str = "mean"
    accept_truncated: bool = False

    def target(self, source: str) -> str:
        """The relative path of the file that is made of a source."""
        return Path(source).with_suffix(f".{self.format}").as_posix()


@dataclass
class PreprocessOutcome(Outcome):
    """What a run did, and the sources that a user should know of, also of files that were reused.

    Attributes:
        clipped: exceeded full scale and were clipped.
        silent_channels: had channels 40 dB or more below the loudest, which were left out of the mean.
        uncorrelated: have channels that are nearly uncorrelated, and were mixed.
        truncated: were cut off or damaged, and taken as far as they can be read.
        silent: have no sample that is not 0 at 16 bits.
        offset: have a constant offset (DC) that is larger than their sound.
        others: numbers of files that have no suffix of audio and were left out, by suffix.
    """

    clipped: list[str] = field(default_factory=list)
    silent_channels: list[str] = field(default_factory=list)
    uncorrelated: list[str] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    offset: list[str] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    def note(self, source: str, kinds: Iterable[str]) -> None:
        """Adds a source to the lists of these names."""
        for kind in kinds:
            getattr(self, kind).append(source)


def find_sources(srcdir: str | Path, outdir: str | Path, postfix: str | None = None) -> list[str]:
    """The relative paths of the audio under `srcdir` whose names end with `postfix` (None: any suffix of
    audio), sorted by folder and name, without hidden files and `outdir`. Raises NotADirectoryError if
    `srcdir` is not a folder, and ValueError if no audio was found or `outdir` is `srcdir`."""
    return _search(srcdir, outdir, postfix)[0]


def _search(
    srcdir: str | Path, outdir: str | Path, postfix: str | None
) -> tuple[list[str], Counter[str]]:
    """What `find_sources` returns, and how many other files there are of each suffix."""
    source, out = Path(srcdir).resolve(), Path(outdir).resolve()
    if not source.is_dir():
        raise NotADirectoryError(f"--srcdir {srcdir} is not a folder")
    if source == out:
        raise ValueError(f"--outdir is --srcdir ({srcdir}); give another folder")
    outputs = out if source in out.parents else None
    found, others = [], Counter[str]()
    for path in walk_files(source):
        if outputs in path.parents:
            continue
        if path.name.endswith(postfix) if postfix else path.suffix.lower() in AUDIO_SUFFIXES:
            found.append(path.relative_to(source).as_posix())  # text takes less memory than a Path
        else:
            others[path.suffix or "without"] += 1
    if not found:
        wanted = f"ends with {postfix!r}" if postfix else "has the suffix of an audio format"
        there = count_suffixes(others) or "nothing"
        raise ValueError(f"no file under {srcdir} {wanted}; found: {there}")
    return sorted(found, key=lambda path: path.replace("/", "\0")), others


def count_suffixes(counts: Mapping[str, int]) -> str:
    """How many files there are of each suffix, as text: `3 .txt, 1 .lab`."""
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.items())


def _check_targets(sources: Iterable[str], options: PreprocessOptions) -> None:
    """Raises ValueError if two sources would become the same file."""
    source_of: dict[str, str] = {}
    for path in sources:
        if (first := source_of.setdefault(made := options.target(path), path)) != path:
            raise ValueError(
                f"{first} and {path} would both become {made}; choose one kind with --postfix"
            )
    for target in map(Path, source_of if options.channel == "each" else ()):
        folder, base = target.parent, target.stem.rpartition("_")[0]
        whole = folder.with_name(base + target.suffix) if base and folder.name else None
        if folder.name == target.stem and whole and (other := source_of.get(whole.as_posix())):
            raise ValueError(
                f"a channel of {other} and {source_of[target.as_posix()]} would both become {target}; "
                "choose one kind with --postfix"
            )


def prepare(wav: np.ndarray, rate: int, options: PreprocessOptions) -> np.ndarray:
    """Resamples (T,) float32 to 16 kHz, trims the trailing silence and pads; the result is not clipped.
    Raises ValueError if less than one unit frame remains."""
    wav = resample(wav, rate)
    found = len(wav)
    if options.trim:
        wav = wav[: _end_of_sound(wav)]
    if len(wav) < SHORTEST:
        after = f" ({len(wav)} after --trim)" if options.trim else ""
        raise ValueError(
            f"too short: {found} samples at 16 kHz{after}, expected {SHORTEST} (one unit frame) or more"
        )
    return pad_to_multiple(wav, PAD_MULTIPLE) if options.pad else wav


def _end_of_sound(wav: np.ndarray) -> int:
    """The samples up to the last frame whose power is within `TRIM_DB` of the loudest, as librosa trims."""
    padded = np.pad(wav, TRIM_FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, TRIM_FRAME)[::TRIM_HOP]
    power = np.maximum([np.mean(frame**2) for frame in frames], 1e-10)
    loud = np.flatnonzero(power > power.max() * 10 ** (-TRIM_DB / 10))
    return min(len(wav), (loud[-1] + 1) * TRIM_HOP) if np.any(wav) else 0


_File = tuple[str, str, str]  # source and target, relative to their folders, and the record's key
_Result = tuple[dict[str, float], list[str]]  # target -> seconds, and what a user should know


def _process(file: _File, source: Path, out: Path, options: PreprocessOptions) -> _Result | str:
    """Writes the files of one source, or returns why it could not be made."""
    path, target = source / file[0], Path(file[1])
    try:
        found = decode(path, options.accept_truncated)
        chosen = choose_channels(path, found.wav, options.channel)
        wavs = {
            (target.with_name(f"{target.stem}_{number}") / f"{target.stem}_{number}{target.suffix}")
            if number and found.wav.shape[1] > 1
            else target: prepare(wav, found.rate, options)
            for number, wav in chosen.items()
        }
        for name, wav in wavs.items():
            write_audio(out / name, wav)
    except (ValueError, OSError) as error:
        return str(error)
    mixed = options.channel == "mean"
    notes = {
        "clipped": any(np.abs(wav).max() > 1 for wav in wavs.values()),
        "silent_channels": bool(channel_levels(found.wav).min() <= SILENT_DB),
        "uncorrelated": mixed and are_uncorrelated(found.wav),
        "truncated": found.missing > 0,
        "silent": not any(np.abs(wav).max() * 32768 >= 0.5 for wav in wavs.values()),
        "offset": any(abs(wav.mean()) > max(wav.std(), 0.01) for wav in wavs.values()),
    }
    seconds = {name.as_posix(): len(wav) / SAMPLE_RATE for name, wav in wavs.items()}
    return seconds, [name for name, is_so in notes.items() if is_so]


def _made_before(record: Record, target: str, key: str) -> dict[str, list[str]] | None:
    """The files and notes of what an earlier run has made of a source; None if it has to be made (again)."""
    known = record.values(key + target) or {"files": [target], "notes": []}
    # What no run of this version has written is made again.
    fits = not misfit(known, _KEPT) and known["files"] and set(known["notes"]) <= set(_NOTES)
    whole = fits and all(record.find(name, key) is not None for name in known["files"])
    return known if whole else None


def preprocess(
    srcdir: str | Path,
    outdir: str | Path,
    options: PreprocessOptions,
    postfix: str | None = None,
    shard: Shard | None = None,
    workers: int = 1,
) -> PreprocessOutcome:
    """Converts a folder to the same folders in `outdir`; files that are already made are reused. A `shard`
    I/N is every N-th file, beginning with the I-th. Raises the errors of `find_sources`, and ValueError if
    two sources would become the same file or `options.channel` is none."""
    check_channel(options.channel)
    source, out, shard = Path(srcdir), Path(outdir), shard or Shard()
    found, others = _search(source, out, postfix)
    _check_targets(found, options)
    mine = found[shard.index - 1 :: shard.count]
    outcome = PreprocessOutcome(others={} if postfix else dict(others))
    process = partial(_process, source=source, out=out, options=options)
    with Record(out) as record, progress(None, len(mine), "preprocess") as bar:

        def files() -> Iterator[_File]:
            for path in mine:
                target = options.target(path)
                try:
                    key = record.key(options, SAMPLE_RATE, source / path)
                except OSError as error:
                    outcome.failed[path] = str(error)
                    bar.update()
                    continue
                if (known := _made_before(record, target, key)) is None:
                    yield path, target, key
                    continue
                outcome.reused += len(known["files"])
                outcome.note(path, known["notes"])
                skip(bar, 1)

        for (path, target, key), result in parallel_map(process, files(), workers):
            bar.update()
            if isinstance(result, str):
                outcome.failed[path] = result
                continue
            seconds, notes = result
            if notes or [*seconds] != [target]:
                # Before the files: a kill in between would lose the notes.
                record.keep(key + target, {"files": list(seconds), "notes": notes})
            for name in seconds:
                record.add(name, key)
            outcome.written += len(seconds)
            outcome.seconds += sum(seconds.values())
            outcome.note(path, notes)
    outcome.failed = dict(sorted(outcome.failed.items()))
    return outcome
