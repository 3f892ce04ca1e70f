"""What the two datasets share: sizes, order and batches as fairseq's iterators want them."""

import numpy as np

from fairseq_resynth.quiet_fairseq import fairseq


class UtteranceDataset(fairseq.data.FairseqDataset):
    """Utterances, or a random crop of each.

    Args:
        sizes: (rows,) frames of each item, units or F0 frames: what --max-tokens counts.
        crops: whether items are random crops, drawn anew each epoch.
        seed: of the crops and of the order.

    Attributes:
        epoch: what crops and order depend on, set by fairseq.
    """

    def __init__(self, sizes: np.ndarray, crops: bool, seed: int):
        self.sizes = sizes
        self.crops = crops
        self.seed = seed
        self.epoch = 1

    def __len__(self) -> int:
        return len(self.sizes)

    def num_tokens(self, index: int) -> int:
        """Returns the frames of an item."""
        return int(self.sizes[index])

    def size(self, index: int) -> int:
        """Returns the frames of an item."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Returns the frames of items."""
        return self.sizes[indices]

    def ordered_indices(self) -> np.ndarray:
        """Returns a new order each epoch for crops, the order of length for whole utterances."""
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
        """Divides items into batches; an item longer than `max_tokens` gets a batch of its own.

        The multiple is not used: fairseq 0.12.3 loses the last items when it is above 1, its default is 8.
        """
        sizes = self.sizes[indices].astype(np.int64)
        if max_tokens is not None:
            sizes = np.minimum(sizes, max_tokens)
        return fairseq.data.data_utils.batch_by_size(
            indices, self.num_tokens, sizes, max_tokens, max_sentences
        )

    def set_epoch(self, epoch: int) -> None:
        """Sets what crops and order depend on."""
        self.epoch = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False: batches are drawn anew, and data loader workers learn the epoch only when they start."""
        return False
