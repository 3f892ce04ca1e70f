"""Any audio to 16 kHz mono files in the same folders: what `resynth preprocess` does."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import (
    AUDIO_SUFFIXES,
    load_any_audio,
    pad_to_multiple,
    resample,
    write_audio,
)
from fairseq_resynth.data.pitch.extraction import SHORTEST
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.workers import parallel_map

PAD_MULTIPLE = 1280  # samples: a whole number of F0 codes, and of unit frames at either hop
TRIM_DB = 20  # below the loudest frame, as librosa.effects.trim counts


@dataclass(frozen=True)
class PreprocessOptions:
    """How files change: `pad` to whole F0 codes, `trim` trailing silence, `format` flac or wav."""

    pad: bool = False
    trim: bool = False
    format: str = "flac"


@dataclass
class PreprocessOutcome(Outcome):
    """What a run did.

    Attributes:
        clipped: sources that exceeded full scale and were clipped.
    """

    clipped: list[str] = field(default_factory=list)


def find_sources(srcdir: str | Path, outdir: str | Path, postfix: str | None = None) -> list[Path]:
    """The relative paths of the audio under `srcdir`, sorted, without hidden files and `outdir`.

    Args:
        srcdir: folder to search.
        outdir: may be within `srcdir`.
        postfix: end of the wanted names; None: any suffix of an audio format.

    Raises:
        NotADirectoryError: `srcdir` is not a folder.
        ValueError: No audio was found, or `outdir` is `srcdir`.
    """
    source, out = Path(srcdir).resolve(), Path(outdir).resolve()
    if not source.is_dir():
        raise NotADirectoryError(f"--srcdir {srcdir} is not a folder")
    if source == out:
        raise ValueError(f"--outdir is --srcdir ({srcdir}); give another folder")
    outputs = out if source in out.parents else None
    files = [
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and outputs not in path.parents and not path.name.startswith(".")
    ]
    found = sorted(path for path in files if _wanted(path, postfix))
    if not found:
        suffixes = ", ".join(
            f"{n} {s or 'without'}" for s, n in Counter(p.suffix for p in files).items()
        )
        wanted = f"ends with {postfix!r}" if postfix else "has the suffix of an audio format"
        raise ValueError(f"no file under {srcdir} {wanted}; found: {suffixes or 'nothing'}")
    return found


def _wanted(path: Path, postfix: str | None) -> bool:
    return path.name.endswith(postfix) if postfix else path.suffix.lower() in AUDIO_SUFFIXES


def _require_one_source_each(sources: Sequence[Path], format: str) -> None:
    first: dict[Path, Path] = {}
    for path in sources:
        target = path.with_suffix(f".{format}")
        if target in first:
            raise ValueError(
                f"{first[target]} and {path} would both become {target}; choose one kind with --postfix"
            )
        first[target] = path


def prepare(wav: np.ndarray, rate: int, options: PreprocessOptions) -> np.ndarray:
    """Resamples, trims the trailing silence and pads.

    Args:
        wav: (T,) float32.
        rate: Hz.
        options: what to do.

    Returns:
        (T',) float32 at 16 kHz, not clipped.

    Raises:
        ValueError: Less than one unit frame remains, or was there before trimming.
    """
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
    import librosa

    if not np.any(wav):
        return 0
    return int(librosa.effects.trim(wav, top_db=TRIM_DB)[1][1])


@dataclass(frozen=True)
class _File:
    source: Path
    target: Path
    name: str  # of the source
    key: str


def _process(file: _File, options: PreprocessOptions) -> tuple[float, bool] | str:
    """Writes a file; returns its seconds and whether it was clipped, or why it could not be made."""
    try:
        wav = prepare(*load_any_audio(file.source), options)
        write_audio(file.target, wav)
    except (ValueError, OSError) as error:
        return str(error)
    return len(wav) / SAMPLE_RATE, bool(np.abs(wav).max() > 1)


def preprocess(
    srcdir: str | Path,
    outdir: str | Path,
    options: PreprocessOptions,
    postfix: str | None = None,
    shard: Shard | None = None,
    workers: int = 1,
) -> PreprocessOutcome:
    """Converts a folder; files that these options made from the same sources are reused.

    Args:
        srcdir: folder of any audio.
        outdir: gets the same folders, with one file per source.
        options: what to do to each.
        postfix: see `find_sources`.
        shard: every N-th file, beginning with the I-th.
        workers: processes.

    Raises:
        NotADirectoryError, ValueError: See `find_sources`; or two sources would become the same file.
    """
    source, out, shard = Path(srcdir), Path(outdir), shard or Shard()
    sources = find_sources(source, out, postfix)
    _require_one_source_each(sources, options.format)
    mine = sources[shard.index - 1 :: shard.count]
    outcome = PreprocessOutcome()
    with Record(out) as record, tqdm(total=len(mine), desc="preprocess", unit="file") as bar:

        def files() -> Iterator[_File]:
            for path in mine:
                target = path.with_suffix(f".{options.format}").as_posix()
                try:
                    key = record.key(options, SAMPLE_RATE, source / path)
                except OSError as error:
                    outcome.failed[path.as_posix()] = str(error)
                    continue
                if record.find(target, key) is None:
                    yield _File(source / path, out / target, path.as_posix(), key)
                else:
                    outcome.reused += 1
                    bar.update()

        for file, result in parallel_map(partial(_process, options=options), files(), workers):
            if isinstance(result, str):
                outcome.failed[file.name] = result
            else:
                record.add(file.target.relative_to(out).as_posix(), file.key)
                outcome.written += 1
                outcome.seconds += result[0]
                outcome.clipped += [file.name] if result[1] else []
            bar.update()
    outcome.failed = dict(sorted(outcome.failed.items()))
    return outcome
