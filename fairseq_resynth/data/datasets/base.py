"""The base class of the datasets: sizes, order and batches for fairseq's iterators, and random crops."""

import math
from typing import Any

import numpy as np

from fairseq_resynth.compat import fairseq
from fairseq_resynth.data.datasets.workers import LoadingWorkers
from fairseq_resynth.data.manifest import Manifest


class UtteranceDataset(fairseq.data.FairseqDataset):
    """Utterances, or a random crop of each.

    Args:
        manifest: the recordings, which messages name.
        sizes: (rows,) frames of each item (units or F0 frames), which --max-tokens counts.
        crops: whether items are random crops, with other crops in each epoch.
        seed: seed of the crops and of the order, which also depend on the epoch that fairseq sets.
    """

    def __init__(self, manifest: Manifest, sizes: np.ndarray, crops: bool, seed: int):
        self.manifest = manifest
        self.sizes = sizes
        self.crops = crops
        self.seed = seed
        self.epoch = 1
        self.dummy_batch: dict[str, Any] | None = None
        self._workers: LoadingWorkers | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def describe(self, row: int) -> str:
        """The name of an item for messages: its row, line in the manifest, and recording."""
        manifest = self.manifest
        return f"item {row} ({manifest.source}:{row + 2}, {manifest.path(row)})"

    def workers(self, number: int, ahead: int) -> LoadingWorkers:
        """The processes that load its batches, the same ones in every epoch; the first call makes them."""
        workers = self._workers
        if workers is None or not workers.close.alive or workers.size != (number, ahead):
            self._workers = workers = None  # ends the old ones first
            self._workers = workers = LoadingWorkers(self, number, ahead)
        return workers

    def num_tokens(self, index: int) -> int:
        """The frames of an item."""
        return int(self.sizes[index])

    size = num_tokens

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """The frames of several items."""
        return self.sizes[indices]

    def ordered_indices(self) -> np.ndarray:
        """The order of the epoch: random for crops, by length for whole utterances."""
        if self.crops:
            return np.random.default_rng((self.seed, self.epoch)).permutation(len(self))
        return np.argsort(self.sizes, kind="stable")

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """Divides items into batches; an item longer than `max_tokens` is a batch by itself.

        The multiple is ignored: with one above 1, and its default is 8, fairseq 0.12.3 loses the last
        items.
        """
        sizes = self.sizes[indices].astype(np.int64)
        if max_tokens is not None:
            sizes = np.minimum(sizes, max_tokens)
        return fairseq.data.data_utils.batch_by_size(
            indices, self.num_tokens, sizes, max_tokens, max_sentences
        )

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which crops and order depend on."""
        self.epoch = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False: each epoch has other batches."""
        return False


def crop_start(length: int, segment_size: int, step: int, seed: int, epoch: int, index: int) -> int:
    """The random start of a crop, a multiple of `step` samples; 0 for utterances not longer than the crop.

    It depends only on the arguments, so it is the same in any worker or rank.
    """
    if length <= segment_size:
        return 0
    rng = np.random.default_rng((seed, epoch, index))
    return step * int(rng.integers((length - segment_size) // step + 1))


def check_segment_size(segment_size: int, unit_hop: int, f0_code_hop: int) -> int:
    """The step between starts of crops in samples: the least common multiple of the hops, where both streams
    can be cut. Raises ValueError if the crop is not a whole number of units; an `f0_code_hop` of 0 stands for
    no pitch codes."""
    step = math.lcm(unit_hop, f0_code_hop or unit_hop)
    if segment_size < unit_hop or segment_size % unit_hop:
        raise ValueError(
            f"--segment-size is {segment_size} samples, expected a multiple of {unit_hop} (the units' hop), "
            f"{whole_units(segment_size, unit_hop)} for instance."
        )
    return step


def whole_units(segment_size: int, unit_hop: int) -> int:
    """The whole number of units, at least one, that is nearest to a crop; both in samples."""
    return max(1, round(segment_size / unit_hop)) * unit_hop
