"""Speech to content units with a VQ-VAE over raw audio, which needs no k-means."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_resynth.data.f0_codes import weights_hash
from fairseq_resynth.modules.content_vqvae import ContentVqvae

CHUNK = 6000  # units encoded at a time, a minute at 100 Hz
CONTEXT = 100  # on either side, more than the encoder sees: chunks give what the whole gives


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
        window, context = CHUNK * self.unit_hop, CONTEXT * self.unit_hop
        units = []
        for start in range(0, len(whole), window):
            first = max(0, start - context)
            chunk = whole[first : start + window + context]
            skipped = (start - first) // self.unit_hop
            found = self.vqvae.encode(chunk[None, None])[0]
            units.append(found[skipped : skipped + CHUNK])
        return torch.cat(units).cpu().numpy()

    def encode_batch(self, wavs: Sequence[Tensor]) -> list[np.ndarray]:
        """Returns the units of several waveforms, each as alone: (T,) to (U,) int64."""
        return [self.encode(wav) for wav in wavs]
