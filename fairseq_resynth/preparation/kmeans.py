"""Fitting k-means on a corpus: a uniform sample of its frames in bounded memory, then mini-batch k-means."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.encoders.frames import FrameEncoder, plan_batches, read_speech


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\t{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def sampled_rows(names: Sequence[str], percent: float, seed: int) -> list[int]:
    """The rows of about `percent` % of the files, at least one, drawn by the seed and each file's name."""
    draws = [_generator(seed, f"file\t{name}").random() * 100 for name in names]
    return [row for row, draw in enumerate(draws) if draw < percent] or [int(np.argmin(draws))]


class FrameReservoir:
    """A uniform sample of at most `capacity` frames, which does not depend on the order of the files.

    Every frame draws a random number from a generator seeded with (seed, file name); the frames with the
    smallest numbers stay (bottom-k sampling, Cohen & Kaplan, PODC 2007). Memory is bounded by twice the
    capacity and one file.
    """

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
    """Fits mini-batch k-means on (n, D) float32 frames in random order.

    The settings are those of GSLM's cluster_kmeans.py, except for two. GSLM re-seeds every cluster with less
    than half as many frames as the largest (reassignment_ratio 0.5): on 6 minutes of log-mel, K = 100, the
    distance stays 1.5 times that of scikit-learn's default, 0.01, which is used here. And 3 initializations
    are compared rather than 20.

    Returns (K, D) float32 centroids and the mean squared distance of a frame to its centroid. Raises
    ValueError if there are fewer frames than clusters.
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


def read_batches(
    manifest: Manifest,
    rows: Sequence[int],
    batch_samples: int,
    min_samples: int,
    failed: dict[str, str],
) -> Iterator[dict[int, Tensor]]:
    """Yields the batches of `plan_batches` as {row: (T,) float32}.

    Rows that `read_speech` refuses are left out and added to `failed`: path -> reason.
    """
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
    progress: Callable[[int], Any] = lambda files: None,
) -> FrameSample:
    """Draws frames from `percent` % of the files; the sample depends on file names and seed, not on order.

    `batch_samples` padded samples are encoded together; 0: one file at a time. `progress` is called with the
    number of files done since the last call.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"--sample-percent is {percent}, expected above 0 and up to 100")
    rows = sampled_rows(manifest.paths, percent, seed)
    progress(len(manifest) - len(rows))
    reservoir, failed = FrameReservoir(max_frames, seed), {}
    for wavs in read_batches(manifest, rows, batch_samples, encoder.min_samples, failed):
        for row, frames in zip(wavs, encoder.features(list(wavs.values())), strict=True):
            reservoir.add(manifest.paths[row], frames.cpu().numpy())
        progress(len(wavs))
    progress(len(failed))
    return FrameSample(reservoir.frames(), len(rows) - len(failed), reservoir.seen, failed)
