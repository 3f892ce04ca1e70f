"""Content units: k-means on a uniform sample of a corpus's frames, and `{split}.units`, block by block."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import LinesPart, RowsOutcome, Shard
from fairseq_resynth.data.storage.workers import progress
from fairseq_resynth.data.units import format_integers
from fairseq_resynth.encoders.content import ContentEncoder, VqvaeUnits
from fairseq_resynth.encoders.frames import FrameEncoder, plan_batches, read_speech

logger = logging.getLogger(__name__)
# Rows that are batched among themselves and written at once. An interrupted run repeats less than one
# block, and since its batches are the same again, so are its bytes.
BLOCK_ROWS = 64


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\t{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def sampled_rows(names: Sequence[str], percent: float, seed: int) -> list[int]:
    """The rows of about `percent` % of the files, at least one, drawn by the seed and each file's name."""
    draws = [_generator(seed, f"file\t{name}").random() * 100 for name in names]
    return [row for row, draw in enumerate(draws) if draw < percent] or [int(np.argmin(draws))]


class FrameReservoir:
    """A uniform sample of at most `capacity` frames, in any order of the files: the frames with the smallest
    random numbers by (seed, file name) stay (bottom-k sampling, Cohen & Kaplan, PODC 2007). Memory is bounded
    by twice the capacity and one file."""

    def __init__(self, capacity: int, seed: int):
        self.capacity, self.seed, self.seen = capacity, seed, 0
        self._keys: list[np.ndarray] = []
        self._frames: list[np.ndarray] = []
        self._held = 0
        self._bound = 1.0  # a frame with a larger number cannot be among the smallest any more

    def add(self, name: str, features: np.ndarray) -> None:
        """Offers the frames of one file: (U, D) float32."""
        keys = _generator(self.seed, name).random(len(features))
        kept = keys < self._bound
        self.seen += len(features)
        self._keys.append(keys[kept])
        self._frames.append(features[kept])
        self._held += int(kept.sum())
        if self._held >= 2 * self.capacity:
            self._shrink()

    def _shrink(self) -> None:
        keys, frames = np.concatenate(self._keys), np.concatenate(self._frames)
        order = np.argsort(keys)[: self.capacity]
        self._keys, self._frames, self._held = [keys[order]], [frames[order]], len(order)
        if len(order) == self.capacity:
            self._bound = float(keys[order[-1]])

    def frames(self) -> np.ndarray:
        """The sample, (n, D) float32, in the order of the random numbers."""
        if not self._frames:
            return np.zeros((0, 0), dtype=np.float32)
        self._shrink()
        return self._frames[0]


def fit_centroids(frames: np.ndarray, num_clusters: int, seed: int) -> tuple[np.ndarray, float]:
    """Fits mini-batch k-means on (n, D) float32 frames in random order: (K, D) float32 centroids and the mean
    squared distance of a frame to its centroid. Raises ValueError if there are fewer frames than clusters.

    The settings are those of GSLM's cluster_kmeans.py, except for two. GSLM re-seeds every cluster with less
    than half as many frames as the largest (reassignment_ratio 0.5): on 6 minutes of log-mel, K = 100, the
    distance stays 1.5 times that of scikit-learn's default, 0.01, which is used here. And 3 initializations
    are compared rather than 20.
    """
    from sklearn.cluster import MiniBatchKMeans

    if not 2 <= num_clusters <= len(frames):
        raise ValueError(
            f"--num-clusters is {num_clusters}, expected 2 to {len(frames)}: the frames that were sampled"
        )
    model = MiniBatchKMeans(
        n_clusters=num_clusters,
        max_iter=150,
        batch_size=10000,
        tol=0.0,
        max_no_improvement=100,
        n_init=3,
        reassignment_ratio=0.01,
        random_state=seed,
    )
    model.fit(frames)
    return model.cluster_centers_.astype(np.float32), float(model.inertia_) / len(frames)


@dataclass
class FrameSample:
    """Frames to fit on."""

    frames: np.ndarray  # (n, D) float32 in random order
    files: int  # that were read
    seen: int  # frames in those files
    failed: dict[str, str]  # path -> reason


def _read_batches(
    manifest: Manifest,
    rows: Sequence[int],
    batch_samples: int,
    min_samples: int,
    failed: dict[str, str],
) -> Iterator[dict[int, Tensor]]:
    """The batches of `plan_batches`, {row: (T,) float32}; unreadable rows go to `failed`: path -> reason."""
    for batch in plan_batches(manifest.num_samples, rows, batch_samples):
        wavs = {}
        for row in batch:
            try:
                wavs[row] = read_speech(manifest.path(row), min_samples)
            except (FileNotFoundError, ValueError) as error:
                failed[manifest.paths[row]] = str(error)
        if wavs:
            yield wavs


def sample_frames(
    manifest: Manifest,
    encoder: FrameEncoder,
    max_frames: int,
    percent: float,
    seed: int,
    batch_samples: int,
) -> FrameSample:
    """Draws frames from `percent` % of the files; the sample depends on file names and seed, not on order.
    `batch_samples` padded samples are encoded together; 0: one file at a time."""
    if not 0 < percent <= 100:
        raise ValueError(f"--sample-percent is {percent}, expected above 0 and up to 100")
    rows = sampled_rows(manifest.paths, percent, seed)
    reservoir, failed = FrameReservoir(max_frames, seed), {}
    with progress(None, len(rows), "kmeans: features") as bar:
        for wavs in _read_batches(manifest, rows, batch_samples, encoder.min_samples, failed):
            for row, frames in zip(wavs, encoder.features(list(wavs.values())), strict=True):
                reservoir.add(manifest.paths[row], frames.cpu().numpy())
            bar.update(len(wavs))
        bar.update(len(failed))
    return FrameSample(reservoir.frames(), len(rows) - len(failed), reservoir.seen, failed)


def _encode(
    part: LinesPart,
    encoder: ContentEncoder | VqvaeUnits,
    rows: Sequence[int],
    batch_samples: int,
    outcome: RowsOutcome,
) -> tuple[dict[int, str], dict[int, bytes]]:
    """A line for each row, empty where it failed, and the stamps of the rows that did not fail."""
    stamps = {row: part.stamp(row) for row in rows}  # before the recordings are read
    units: dict[int, np.ndarray] = {}
    for wavs in _read_batches(
        part.manifest, rows, batch_samples, encoder.min_samples, outcome.failed
    ):
        units |= zip(wavs, encoder.encode_batch(list(wavs.values())), strict=True)
    outcome.written += len(units)
    lines = {row: format_integers(units[row]) if row in units else "" for row in rows}
    return lines, {row: stamps[row] for row in units}


def quantize_split(
    manifest: Manifest,
    target: Path,
    encoder: ContentEncoder | VqvaeUnits,
    shard: Shard,
    batch_samples: int,
) -> RowsOutcome:
    """Writes `{split}.units`, or this shard's part of it, and `units.json` beside it. Rows that fail stay
    empty in the part and are tried again by the next run. `batch_samples` padded samples are encoded
    together; 0: one file at a time."""
    record, settings = Record(target.parent), encoder.description
    part = LinesPart(record, target.name, manifest, shard, settings, {"units.json": settings})
    rows = part.rows
    if (outcome := part.finished()) is not None:
        return outcome
    outcome = RowsOutcome(rows=len(rows))
    with part, progress(None, len(rows), f"quantize {target.stem}") as bar:
        done = part.keep_lines(BLOCK_ROWS)
        again = [row for row in rows[:done] if not part.is_done(row)]
        outcome.reused = done - len(again)
        if done:
            logger.info("%s: %d of %d rows are reused", target.name, outcome.reused, len(rows))
        if again:  # they failed before, or their recordings have changed
            part.replace(*_encode(part, encoder, again, 0, outcome))
        bar.update(done)
        for start in range(done, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            part.append(*_encode(part, encoder, block, batch_samples, outcome))
            bar.update(len(block))
        outcome.joined = part.close(outcome.failed)
    return outcome


def foreign_units(data: Path) -> list[str]:
    """The `.units` files of a data folder that another encoder made than the one in `units.json`."""
    path, record = data / "units.json", Record(data)
    if not path.is_file():
        return []
    settings = record.key(read_json(path))
    names = sorted(file.name for file in data.glob("*.units"))
    made_by = {name: [facts["settings"] for facts in record.facts(name)] for name in names}
    return [name for name, keys in made_by.items() if keys and settings not in keys]
