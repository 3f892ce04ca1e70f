"""Speech to content units with a VQ-VAE over raw audio, which needs no k-means."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_resynth.data.f0_codes import weights_hash
from fairseq_resynth.modules.content_vqvae import ContentVqvae


class VqvaeUnits:
    """The counterpart of `ContentEncoder` for a content VQ-VAE.

    Args:
        vqvae: in evaluation mode.
        device: where to compute.

    Attributes:
        unit_hop: samples a unit.
        min_samples: fewest samples that give a unit.
        num_units: size of the codebook.
        description: what `units.json` says.
    """

    def __init__(self, vqvae: ContentVqvae, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self.vqvae = vqvae.eval().to(self.device)
        self.unit_hop = self.min_samples = vqvae.stride
        self.num_units = vqvae.num_codes
        self.description: dict[str, Any] = {
            "feature_type": "vqvae",
            "vqvae_hash": weights_hash(vqvae),
            "num_clusters": vqvae.num_codes,
            "unit_hop": vqvae.stride,
        }

    @torch.inference_mode()
    def encode(self, wav: np.ndarray | Tensor) -> np.ndarray:
        """Maps (T,) samples at 16 kHz to (T // unit_hop,) int64 units; what is left at the end has none.

        Raises:
            ValueError: not of one dimension, or too short for a unit.
        """
        wav = torch.as_tensor(wav, dtype=torch.float32)
        if wav.dim() != 1 or len(wav) < self.min_samples:
            raise ValueError(
                f"wav: found shape {tuple(wav.shape)}, expected (T,) of at least {self.min_samples} samples."
            )
        whole = wav[: len(wav) // self.unit_hop * self.unit_hop].to(self.device)
        return self.vqvae.encode(whole[None, None])[0].cpu().numpy()
