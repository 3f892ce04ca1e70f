"""K-means on a uniform sample of a corpus's frames: drawing the sample, and fitting on any device."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.workers import progress
from fairseq_resynth.encoders.frames import Device, FrameEncoder
from fairseq_resynth.preparation.units import Reading, read_batches

SEEDING_FRAMES = 20  # per cluster, on which the clusters are begun
BEGINNINGS = 3  # of which the best is continued on all frames
CHUNK_DISTANCES = 1 << 23  # distances computed together: 32 MB


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


def fit_centroids(
    frames: np.ndarray, num_clusters: int, seed: int, device: Device = "cpu"
) -> tuple[np.ndarray, float]:
    """Fits k-means on (n, D) float32 frames in random order: (K, D) float32 centroids and the mean squared
    distance of a frame to its centroid. Raises ValueError if there are fewer frames than clusters.

    Greedy k-means++ (Arthur & Vassilvitskii, 2007) and Lloyd's iterations on a part of the frames, several
    times; the best of these is continued on all of them until an iteration gains less than 0.01 %.
    """
    if not 2 <= num_clusters <= len(frames):
        raise ValueError(
            f"--num-clusters is {num_clusters}, expected 2 to {len(frames)}: the frames that were sampled"
        )
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    x = torch.from_numpy(frames).to(device)
    mean = x.mean(0)
    x = x - mean  # large means would cost the distances their precision
    few, best = x[: max(1, CHUNK_DISTANCES // num_clusters)], None
    number = min(len(x), SEEDING_FRAMES * num_clusters)
    with torch.inference_mode():
        for _ in range(BEGINNINGS):
            part = x[torch.randperm(len(x), generator=generator)[:number].to(x.device)]
            begun = _lloyd(part, _seed_centroids(part, num_clusters, generator), 1e-3)[0]
            distance = _assign(few, few.square().sum(1), begun)[2]
            if best is None or distance < best[1]:
                best = begun, distance
        centroids, distance = _lloyd(x, best[0], 1e-4)
    return (centroids + mean).cpu().numpy(), distance


def _seed_centroids(x: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: each centroid is a frame drawn by its squared distance to those before it, the best
    of several draws. Nothing is read back from the device."""
    squares, trials = x.square().sum(1), 2 + int(np.log(num_clusters))
    draws = torch.rand(num_clusters, trials, generator=generator).to(x.device)
    centroids = x.new_zeros(num_clusters, x.shape[1])
    closest = torch.ones_like(squares)  # so that the first is drawn uniformly
    for index, draw in enumerate(draws):
        shares = closest.cumsum(0)
        drawn = x[torch.searchsorted(shares, draw * shares[-1]).clamp_(max=len(x) - 1)]
        distances = squares[:, None] - 2 * (x @ drawn.T) + drawn.square().sum(1)
        distances.clamp_(min=0)
        if index:
            distances = torch.minimum(distances, closest[:, None])
        best = distances.sum(0).argmin(keepdim=True)
        closest = distances.index_select(1, best)[:, 0]
        centroids[index] = drawn.index_select(0, best)[0]
    return centroids


def _assign(x: Tensor, squares: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, float]:
    """Sums (K, D) and numbers (K,) of the frames nearest to each centroid, and the mean squared distance;
    `squares` (n,) are the frames' own."""
    sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    lengths, total = centroids.square().sum(1), squares.sum(dtype=torch.float64)
    for part in x.split(max(1, CHUNK_DISTANCES // len(centroids))):
        distances, nearest = torch.addmm(lengths, part, centroids.T, alpha=-2).min(1)
        total += distances.sum(dtype=torch.float64)
        sums.index_add_(0, nearest, part)
        counts += torch.bincount(nearest, minlength=len(centroids))
    return sums, counts, total.item() / len(x)


def _lloyd(x: Tensor, centroids: Tensor, tolerance: float) -> tuple[Tensor, float]:
    """Lloyd's iterations until one gains less than `tolerance` of the mean squared distance: centroids and
    that distance. A centroid that loses all its frames stays where it is."""
    squares = x.square().sum(1)
    sums, counts, distance = _assign(x, squares, centroids)
    while True:
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        sums, counts, found = _assign(x, squares, moved)
        if found >= distance * (1 - tolerance):
            return (moved, found) if found <= distance else (centroids, distance)
        centroids, distance = moved, found


@dataclass
class FrameSample:
    """Frames to fit on."""

    frames: np.ndarray  # (n, D) float32 in random order
    files: int  # that were read
    seen: int  # frames in those files
    failed: dict[str, str]  # path -> reason


def sample_frames(
    manifest: Manifest,
    encoder: FrameEncoder,
    max_frames: int,
    percent: float,
    seed: int,
    reading: Reading,
) -> FrameSample:
    """Draws up to `max_frames` frames from `percent` % of the files; the sample depends on file names and
    seed, not on order. Raises ValueError if a number is out of range."""
    if not 0 < percent <= 100:
        raise ValueError(f"--sample-percent is {percent}, expected above 0 and up to 100")
    if max_frames < 1:
        raise ValueError(f"--max-frames is {max_frames}, expected 1 or more")
    rows = sampled_rows(manifest.paths, percent, seed)
    reservoir, failed = FrameReservoir(max_frames, seed), {}
    with progress(None, len(rows), "kmeans: features") as bar:
        for batch in read_batches(manifest, [rows], encoder.min_samples, reading):
            with batch.within_memory():
                encoded = encoder.features(list(batch.wavs.values()))
            frames = (
                torch.cat(encoded).cpu().split([len(one) for one in encoded]) if encoded else ()
            )
            for row, one in zip(batch.wavs, frames, strict=True):
                reservoir.add(manifest.paths[row], one.numpy())
            failed |= batch.failed
            bar.update(len(batch.rows))
    return FrameSample(reservoir.frames(), len(rows) - len(failed), reservoir.seen, failed)
