"""Masks of the rows of a padded batch."""

import torch
from torch import Tensor


def frame_mask(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """A mask (B, 1, ..., L) in the type of frames (B, C, ..., L), 1 within each row's length; None without
    lengths."""
    if lengths is None:
        return None
    inside = torch.arange(x.size(-1), device=x.device) < lengths[:, None]
    return inside.to(x.dtype).view(len(lengths), *[1] * (x.ndim - 2), -1)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Frames with zeros after each row's end, where the mask is 0; None changes nothing."""
    return x if mask is None else x * mask
