"""What fits into the memory of a GPU when a training step does not."""

from collections.abc import Callable
from typing import Any, Dict, Optional

import torch

GIB = 2**30


class CudaMemory:
    """The memory of the current GPU, in bytes."""

    def available(self) -> int:
        """What torch could still allocate."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]

    def peak(self, run: Callable[[], None]) -> Optional[int]:
        """What a function needs at its peak beyond what is allocated; None if that is not available."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            run()
        except torch.OutOfMemoryError:
            return None
        return torch.cuda.max_memory_allocated() - before


def first_rows(inputs: Dict[str, Any], count: int) -> Dict[str, Any]:
    """The first rows of {"net_input": {name: tensor}, "target"}."""
    streams = {name: value[:count] for name, value in inputs["net_input"].items()}
    return {"net_input": streams, "target": inputs["target"][:count]}


def explain(step: Callable[[int], None], batch_size: int, segment: int, memory) -> str:
    """The error message of a step that ran out of memory: what was too large, and what would fit.

    Args:
        step: runs the forward and backward passes of a step on that many rows of the batch.
        batch_size, segment: rows, and samples of each, of the batch that did not fit.
        memory: `CudaMemory`, or what has its methods.
    """
    available = memory.available()
    found: Dict[int, int] = {}
    rows = batch_size
    # Two sizes tell what a row needs apart from what every step needs.
    while rows > 1 and len(found) < 2:
        rows //= 2
        peak = memory.peak(lambda rows=rows: step(rows))
        if peak is not None:
            found[rows] = peak
    what = (
        f"the GPU's memory is too small for a step on --batch-size {batch_size} (on each GPU) with "
        f"--segment-size {segment}"
    )
    if not found:
        return (
            f"{what}, and one utterance does not fit into {available / GIB:.1f} GiB either. Use a smaller "
            "--segment-size or --discriminator-width, or --autocast bfloat16."
        )
    largest = max(found)
    row = (found[largest] - found.get(largest // 2, 0)) / (
        largest - largest // 2 * (len(found) > 1)
    )
    fixed = max(0.0, found[largest] - row * largest)
    # a twentieth for the gaps between allocations
    fits = min(batch_size - 1, max(largest, int((0.95 * available - fixed) / max(row, 1))))
    shorter = segment * fits // batch_size // 1280 * 1280
    also = f", or --segment-size {shorter} with the same batch" if shorter else ""
    return (
        f"{what}: {largest} utterances need {found[largest] / GIB:.1f} of {available / GIB:.1f} GiB, so "
        f"about {fits} fit. Use --batch-size {fits}{also}, or --autocast bfloat16."
    )
