"""What the two datasets share: sizes, order and batches as fairseq's iterators want them."""

import math

import numpy as np

from fairseq_resynth.compat import fairseq


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


def crop_start(length: int, segment_size: int, step: int, seed: int, epoch: int, index: int) -> int:
    """Draws where a crop starts.

    The draw depends on nothing but its arguments, so it is the same whichever worker or rank makes it.

    Args:
        length: samples of the utterance.
        segment_size: samples of the crop; an utterance no longer than that is taken whole.
        step: samples between possible starts, so that units and pitch codes begin with the crop.
        seed: of the training.
        epoch: of the training.
        index: of the utterance.

    Returns:
        Start in samples, a multiple of `step`.
    """
    if length <= segment_size:
        return 0
    rng = np.random.default_rng((seed, epoch, index))
    return step * int(rng.integers((length - segment_size) // step + 1))


def check_segment_size(segment_size: int, unit_hop: int, f0_code_hop: int) -> int:
    """Returns the step between crops, the least common multiple of the hops, in samples.

    Args:
        segment_size: samples of a crop.
        unit_hop: samples a unit.
        f0_code_hop: samples a pitch code; 0: no pitch stream.

    Raises:
        ValueError: the crop is not a whole number of steps.
    """
    step = math.lcm(unit_hop, f0_code_hop or unit_hop)
    if segment_size < step or segment_size % step:
        nearest = max(step, round(segment_size / step) * step)
        raise ValueError(
            f"--segment-size is {segment_size} samples, expected a multiple of {step} (units of "
            f"{unit_hop} and pitch codes of {f0_code_hop} samples), {nearest} for instance."
        )
    return step
