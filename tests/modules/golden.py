"""The stored outputs of the original system and the mapping of its weights' names to ours."""

import re
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def formula_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The weights of golden/gan_losses, a formula over name and shape (golden/README.md)."""
    count = int(np.prod(shape))
    wave = np.sin(0.7390851 * np.arange(count) + crc32(name.encode()) % 1000)
    if name.endswith("weight_g"):
        values = 1 + 0.25 * wave
    elif name.endswith("bias"):
        values = 0.01 * wave
    else:
        values = 0.05 * wave
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def our_name(name: str) -> str:
    """Old-style weight and spectral norm names to torch's parametrizations."""
    name = name.replace(".weight_g", ".parametrizations.weight.original0")
    name = name.replace(".weight_orig", ".parametrizations.weight.original")
    name = name.replace(".weight_u", ".parametrizations.weight.0._u")
    if re.search(r"\.weight_v$", name):
        return name.replace(".weight_v", ".parametrizations.weight.original1")
    return name
