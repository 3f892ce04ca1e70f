"""Any audio to 16 kHz mono files, folders kept: what `resynth preprocess` does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import (
    AUDIO_SUFFIXES,
    load_any_audio,
    pad_to_multiple,
    resample,
    write_audio,
)
from fairseq_resynth.data.pitch.extraction import SHORTEST
from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.workers import parallel_map, progress

PAD_MULTIPLE = 1280  # samples: a whole number of F0 codes, and of unit frames at either hop
TRIM_DB = 20  # below the loudest frame, as librosa.effects.trim counts


@dataclass(frozen=True)
class PreprocessOptions:
    """How files change: `pad` to whole F0 codes, `trim` trailing silence, `format` flac or wav."""

    pad: bool = False
    trim: bool = False
    format: str = "flac"


@dataclass
class PreprocessSummary:
    """What a run did; `failed` maps files to reasons, `clipped` names files that exceeded full scale."""

    written: int = 0
    reused: int = 0
    seconds: float = 0.0
    clipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def find_sources(srcdir: str | Path, outdir: str | Path, postfix: str | None = None) -> list[Path]:
    """Returns the relative paths of the audio under `srcdir`, sorted, without hidden files and `outdir`.

    Args:
        srcdir: folder to search.
        outdir: may lie within `srcdir`.
        postfix: how the wanted names end; None: any suffix of an audio format.

    Raises:
        NotADirectoryError: `srcdir` is no folder.
        ValueError: nothing found, or `outdir` is `srcdir`.
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
        rate: in Hz.
        options: what to do.

    Returns:
        (T',) float32 at 16 kHz, not clipped.

    Raises:
        ValueError: less than a unit frame is there, or remains after trimming.
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


def _process(
    relative: Path, source: Path, out: Path, options: PreprocessOptions, since: int
) -> dict:
    target = out / relative.with_suffix(f".{options.format}")
    try:
        made = target.stat().st_mtime_ns if target.is_file() else 0
        if made >= max(since, (source / relative).stat().st_mtime_ns):
            return {"reused": 1}
        wav = prepare(*load_any_audio(source / relative), options)
        write_audio(target, wav)
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    return {"written": 1, "seconds": len(wav) / SAMPLE_RATE, "clipped": bool(np.abs(wav).max() > 1)}


def _options_since(out: Path, options: PreprocessOptions) -> int:
    """Returns when these options were first used here: files older than that are made again."""
    record, path = vars(options) | {"sample_rate": SAMPLE_RATE}, out / "preprocess.json"
    if not path.is_file() or read_json(path) != record:
        write_json(path, record)
    return path.stat().st_mtime_ns


def preprocess(
    srcdir: str | Path,
    outdir: str | Path,
    options: PreprocessOptions,
    postfix: str | None = None,
    shard: Shard | None = None,
    workers: int = 1,
) -> PreprocessSummary:
    """Converts a folder; files that are up to date stay.

    Args:
        srcdir: folder of any audio.
        outdir: gets the same folders, with one file a source.
        options: what to do to each.
        postfix: see `find_sources`.
        shard: every N-th file, beginning with the I-th.
        workers: processes.

    Raises:
        NotADirectoryError, ValueError: see `find_sources`; or two sources that become the same file.
    """
    source, out, shard = Path(srcdir), Path(outdir), shard or Shard()
    sources = find_sources(source, out, postfix)
    _require_one_source_each(sources, options.format)
    mine = sources[shard.index - 1 :: shard.count]
    job = partial(
        _process, source=source, out=out, options=options, since=_options_since(out, options)
    )
    summary = PreprocessSummary()
    for path, result in progress(parallel_map(job, mine, workers), len(mine), "preprocess"):
        summary.written += result.get("written", 0)
        summary.reused += result.get("reused", 0)
        summary.seconds += result.get("seconds", 0.0)
        if result.get("clipped"):
            summary.clipped.append(str(path))
        if "error" in result:
            summary.failed[str(path)] = result["error"]
    summary.failed = dict(sorted(summary.failed.items()))
    return summary
