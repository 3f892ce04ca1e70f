"""F0 codes of a data folder: what `resynth quantize-f0` does."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_resynth.data.f0 import F0_HOP


class F0Encoder(Protocol):
    """What is needed of `modules.f0_vqvae.F0Vqvae`."""

    num_codes: int
    stride: int

    def encode(self, f0: Tensor) -> Tensor:
        """(B, 1, N) normalised F0 to (B, N / stride) codes."""


def weights_hash(module: nn.Module) -> str:
    """Returns 16 hexadecimal digits of a module's weights, the same from a checkpoint and from a bundle."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def encode_f0(f0_vqvae: F0Encoder, f0: np.ndarray) -> np.ndarray:
    """Quantises one utterance's pitch.

    Alone, not in a batch: beside a longer one, the convolutions would see more than zeros after its end.

    Args:
        f0_vqvae: the quantiser, in evaluation mode.
        f0: (N,) or (C, N) float32, normalised by speaker.

    Returns:
        (ceil(N / stride),) int64; the last code's missing frames are unvoiced.
    """
    f0 = np.atleast_2d(np.asarray(f0, dtype=np.float32))
    padded = np.pad(f0, ((0, 0), (0, -f0.shape[1] % f0_vqvae.stride)))
    return f0_vqvae.encode(torch.from_numpy(padded)[None])[0].numpy()


def describe(f0_vqvae: F0Encoder, checkpoint: str | Path) -> dict[str, Any]:
    """Returns what `f0_codes.json` says of the quantiser."""
    extra = {}
    if getattr(f0_vqvae, "channels", 1) == 2:
        extra = {"representation": "log_vqvae", "normalize": "speaker_log_zscore"}
    return {
        "checkpoint": Path(checkpoint).name,
        "vqvae_hash": weights_hash(f0_vqvae),
        "num_codes": f0_vqvae.num_codes,
        "f0_code_hop": f0_vqvae.stride * F0_HOP,
        "normalize": "speaker_zscore",
        **extra,
    }
