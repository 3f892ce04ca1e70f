"""Filling the F0 cache and `speakers.json`: what `resynth f0` does.

A part of `f0/{split}.npy` is its share of the frames as raw float32, laid out at once and full of NaN; a
row is done when its first frame is a number. So an interrupted run continues, and a row that failed stays NaN
and is tried again. The cache appears only once no row is NaN.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest, read_manifest, read_names
from fairseq_resynth.data.pitch.extraction import (
    F0Cache,
    F0Options,
    compile_method,
    extract_f0,
    num_frames,
)
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.files import array_header, read_json
from fairseq_resynth.data.storage.shards import (
    Shard,
    close_part,
    is_closed,
    join_parts,
    open_part,
    rows_hash,
)
from fairseq_resynth.data.storage.text_columns import Names
from fairseq_resynth.data.storage.workers import parallel_map, progress

_BYTES = 4  # of a float32
_BLOCK_FRAMES = 1 << 18
_LIBRARIES = {  # of a method: what a worker process would import first
    "yaapt": ("amfm_decompy.pYAAPT", "numba.core.typed_passes", "fairseq_resynth.data.pitch.yaapt"),
    "harvest": ("pyworld",),
    "dio": ("pyworld",),
}


@dataclass
class F0Outcome:
    """What became of a split.

    Attributes:
        rows: rows of this shard.
        reused: of them, rows that an earlier run had left.
        failed: path and reason of each row without F0.
        unvoiced: paths of rows in which no frame is voiced.
        joined: whether `f0/{split}.npy` is complete, rather than waiting for other shards or for failed rows.
    """

    rows: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unvoiced: list[str] = field(default_factory=list)
    joined: bool = False


def _extract_row(item: tuple[int, Path, int], options: F0Options) -> np.ndarray | str:
    """Takes (row, path, samples), and returns F0 or the reason why there is none."""
    _, path, expected = item
    try:
        wav = read_audio(path)
        if len(wav) != expected:
            return f"found {len(wav)} samples, the manifest says {expected}; run `resynth manifest` again"
        return extract_f0(wav, **asdict(options))
    except (ValueError, OSError) as error:
        return str(error)


class _Part:
    """The frames of a shard's rows on disk."""

    def __init__(self, path: Path, manifest: Manifest, rows: range):
        self.path, self.rows = path, rows
        lengths = num_frames(manifest.num_samples[rows.start : rows.stop])
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        if path.stat().st_size != self._starts[-1] * _BYTES:
            self._fill_with_nan()

    def _fill_with_nan(self) -> None:
        with self.path.open("wb") as stream:
            for start in range(0, int(self._starts[-1]), _BLOCK_FRAMES):
                count = min(_BLOCK_FRAMES, int(self._starts[-1]) - start)
                stream.write(np.full(count, np.nan, dtype=np.float32).tobytes())

    def _span(self, row: int) -> tuple[int, int]:
        index = row - self.rows.start
        return int(self._starts[index]), int(self._starts[index + 1])

    def missing(self) -> list[int]:
        """Returns the rows without F0."""
        with self.path.open("rb") as stream:
            return [row for row in self.rows if np.isnan(self._first(stream, row))]

    def _first(self, stream: BinaryIO, row: int) -> float:
        stream.seek(self._span(row)[0] * _BYTES)
        return np.frombuffer(stream.read(_BYTES), dtype=np.float32)[0]

    def write(self, stream: BinaryIO, row: int, f0: np.ndarray) -> None:
        """Writes a row's frames, the first one last, since it marks the row as done."""
        start, _ = self._span(row)
        stream.seek((start + 1) * _BYTES)
        stream.write(f0[1:].astype(np.float32).tobytes())
        stream.flush()
        stream.seek(start * _BYTES)
        stream.write(f0[:1].astype(np.float32).tobytes())
        stream.flush()

    def is_unvoiced(self, row: int) -> bool:
        """Tells whether no frame of a finished row is voiced."""
        start, stop = self._span(row)
        f0 = np.fromfile(self.path, np.float32, stop - start, offset=start * _BYTES)
        return not np.any(f0 > 0)

    def write_unvoiced(self, rows: Sequence[int]) -> None:
        """Writes zeros."""
        with self.path.open("r+b") as stream:
            for row in rows:
                start, stop = self._span(row)
                self.write(stream, row, np.zeros(stop - start, dtype=np.float32))


def f0_key(manifest: Manifest, options: F0Options) -> dict[str, Any]:
    """Returns what a cache is made from, as its parts and `f0/{split}.json` record it."""
    return {"rows": rows_hash(manifest), **asdict(options), "f0_hop": F0_HOP}


def join_f0(
    target: Path, manifest: Manifest, count: int, key: dict[str, Any] | None = None
) -> bool:
    """Joins the parts of `f0/{split}.npy` if all are there; see `sharding.join_parts`."""
    frames = int(num_frames(manifest.num_samples).sum())
    return join_parts(target, count, key, array_header((frames,), "<f4"))


def _is_finished(target: Path, key: dict[str, Any]) -> bool:
    description = target.with_suffix(".json")
    return target.is_file() and description.is_file() and read_json(description) == key


def build_f0(
    data_dir: str | Path,
    split: str,
    options: F0Options,
    shard: Shard | None = None,
    workers: int = 1,
    accept_unvoiced: bool = False,
) -> F0Outcome:
    """Fills the cache of a split, or this shard's part of it.

    Args:
        data_dir: the data folder.
        split: `train`, `valid`, …
        options: how F0 is found.
        shard: which rows.
        workers: processes.
        accept_unvoiced: rows that failed become unvoiced.

    Raises:
        FileNotFoundError, ValueError: no usable manifest, or stale parts of other shards.
    """
    shard = shard or Shard()
    manifest = read_manifest(Path(data_dir) / f"{split}.tsv")
    target = Path(data_dir) / "f0" / f"{split}.npy"
    key, rows = f0_key(manifest, options), shard.rows(len(manifest))
    if _is_finished(target, key):
        cache = F0Cache(data_dir, split, manifest)
        unvoiced = [manifest.paths[row] for row in rows if not np.any(cache[row] > 0)]
        return F0Outcome(len(rows), len(rows), unvoiced=unvoiced, joined=True)
    part = _Part(open_part(target, shard, key), manifest, rows)
    outcome = _fill(part, manifest, options, workers, f"f0 {split}")
    if outcome.failed and accept_unvoiced:
        part.write_unvoiced(part.missing())
    if not outcome.failed or accept_unvoiced:
        if not is_closed(target, shard, key):
            close_part(target, shard, key, {f"{split}.json": key})
        outcome.joined = join_f0(target, manifest, shard.count, key)
    return outcome


def _fill(
    part: _Part, manifest: Manifest, options: F0Options, workers: int, what: str
) -> F0Outcome:
    todo = part.missing()
    outcome = F0Outcome(rows=len(part.rows), reused=len(part.rows) - len(todo))
    items = ((row, manifest.path(row), int(manifest.num_samples[row])) for row in todo)
    if workers > 1 and todo:
        compile_method(options)
    extract = partial(_extract_row, options=options)
    results = parallel_map(extract, items, workers, _LIBRARIES[options.method])
    with part.path.open("r+b") as stream:
        for (row, *_), result in progress(results, len(part.rows), what, outcome.reused):
            if isinstance(result, str):
                outcome.failed[manifest.paths[row]] = result
            else:
                part.write(stream, row, result)
    failed = set(outcome.failed)
    outcome.failed = dict(sorted(outcome.failed.items()))
    outcome.unvoiced = [
        manifest.paths[row]
        for row in part.rows
        if manifest.paths[row] not in failed and part.is_unvoiced(row)
    ]
    return outcome


def _speakers(manifest: Manifest) -> Names:
    return read_names(manifest.source.with_suffix(".speaker"), len(manifest))


def write_speaker_statistics(data_dir: str | Path, splits: Sequence[str]) -> SpeakerStatistics:
    """Writes `speakers.json` from the F0 of train.

    Args:
        data_dir: the data folder.
        splits: splits whose speakers must all be speakers of train.

    Raises:
        FileNotFoundError: no F0 of train yet, or a `.speaker` file is missing.
        ValueError: a speaker of another split is not in train; or no voiced frame at all.
    """
    data = Path(data_dir)
    train = read_manifest(data / "train.tsv")
    rows = zip(_speakers(train), F0Cache(data, "train", train), strict=True)
    statistics = SpeakerStatistics.from_frames(rows)
    for split in splits:
        names = _speakers(read_manifest(data / f"{split}.tsv")).table
        unknown = sorted(set(names) - set(statistics.speakers))
        if unknown:
            raise ValueError(
                f"{data / split}.speaker names {', '.join(unknown[:10])}, not in train.speaker: without "
                "training speech there are no F0 statistics. Split again with `resynth manifest`."
            )
    statistics.save(data / "speakers.json")
    return statistics
