"""Random crops: which part of an utterance an epoch trains on."""

import math

import numpy as np


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
