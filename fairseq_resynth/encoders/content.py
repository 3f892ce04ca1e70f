"""Speech to content units: encoders by name, with a k-means or as a content VQ-VAE."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_resynth.constants import FEATURE_TYPES, WITHOUT_WEIGHTS
from fairseq_resynth.data.storage.checkpoints import weights_hash
from fairseq_resynth.encoders.frames import FrameEncoder, plan_chunks
from fairseq_resynth.encoders.kmeans import KMeans, load_kmeans, require_same_features
from fairseq_resynth.modules.quantizers import ContentVqvae


def build_encoder(
    feature_type: str,
    checkpoint_path: str | Path | None = None,
    layer: int | None = None,
    device: str | torch.device = "cpu",
) -> FrameEncoder:
    """Builds the encoder that `--feature-type` names from weights in the layout they were released in.

    Layers count as in GSLM for HuBERT (from 1), wav2vec 2.0 (from 0) and CPC (number of LSTM layers), and
    otherwise give the number of transformer blocks; weights and layer are None for an encoder without
    weights. Raises FileNotFoundError if the checkpoint does not exist, and ValueError if the type is unknown,
    the checkpoint is refused, or checkpoint or layer are missing or given for an encoder that has none.
    """
    if feature_type == "torchaudio":
        raise ValueError(
            "--feature-type torchaudio is no longer supported. --feature-type hf reads the same models from "
            "the Hugging Face hub, for instance facebook/hubert-base-ls960 for HUBERT_BASE: run `resynth "
            "kmeans DATA --feature-type hf --content-checkpoint NAME --layer N` again."
        )
    if feature_type == "vqvae":
        raise ValueError(
            "vqvae needs no k-means, since its codebook defines the units: `resynth quantize DATA "
            "--feature-type vqvae --content-checkpoint CHECKPOINT`"
        )
    if feature_type not in FEATURE_TYPES:
        raise ValueError(
            f"--feature-type: found {feature_type!r}, expected one of {', '.join(FEATURE_TYPES)}"
        )
    found = FEATURE_TYPES[feature_type]
    weights = {"--content-checkpoint": checkpoint_path, "--layer": layer}
    missing = [option for option, value in weights.items() if value is None]
    if found.has_weights and missing:
        raise ValueError(f"--feature-type {feature_type} needs {' and '.join(missing)}")
    if not found.has_weights and len(missing) < len(weights):
        raise ValueError(f"{feature_type} has no weights: leave out {' and '.join(weights)}")
    # Imported only when needed, since most of them load a large library.
    file, name = found.builder.split(":")
    build = getattr(importlib.import_module(f"fairseq_resynth.encoders.{file}"), name)
    return build(*(weights.values() if found.has_weights else ()), device)


def _waveform(wav: np.ndarray | Tensor, min_samples: int) -> Tensor:
    wav = torch.as_tensor(wav, dtype=torch.float32)
    if wav.dim() != 1 or len(wav) < min_samples:
        raise ValueError(
            f"wav: found shape {tuple(wav.shape)}, expected (T,) with {min_samples} samples or more"
        )
    return wav


class ContentEncoder:
    """Speech to content units: frame features and the nearest centroid of each.

    Attributes:
        unit_hop: samples per unit.
        min_samples: smallest number of samples that gives a unit.
        num_units: number of centroids K.
        description: the content of `units.json`: encoder, checkpoint, layer, k-means and their hashes.

    Raises ValueError if the k-means was fitted to features of another encoder or layer.
    """

    def __init__(self, encoder: FrameEncoder, kmeans: KMeans):
        description = encoder.description()
        require_same_features(kmeans, description)
        self.encoder, self.kmeans = encoder, kmeans
        self.unit_hop, self.num_units = encoder.unit_hop, kmeans.num_units
        self.min_samples = encoder.min_samples
        self.description = description | {"num_clusters": kmeans.num_units}
        for key in ("kmeans", "kmeans_hash"):
            self.description[key] = kmeans.description.get(key)

    @classmethod
    def from_kmeans(
        cls,
        kmeans_path: str | Path,
        checkpoint_path: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> "ContentEncoder":
        """Builds the encoder that a file of `resynth kmeans` names, with its weights; None if it has none.
        Raises FileNotFoundError if a file does not exist, and ValueError if it is of another kind or the
        checkpoint is not the one of the k-means."""
        kmeans = load_kmeans(kmeans_path)
        feature_type, layer = kmeans.description["feature_type"], kmeans.description["layer"]
        if checkpoint_path is None and feature_type in set(FEATURE_TYPES) - WITHOUT_WEIGHTS:
            raise ValueError(
                f"the units are of {feature_type}, layer {layer}: give its weights, "
                "--content-checkpoint PATH or content_checkpoint=… in Python."
            )
        return cls(build_encoder(feature_type, checkpoint_path, layer, device), kmeans)

    def features(self, wav: np.ndarray | Tensor) -> Tensor:
        """The (U, D) float32 frame features of (T,) float32 in [-1, 1] at 16 kHz, on the encoder's device.
        Raises ValueError if the waveform is not of one dimension, or too short for a frame."""
        return self.encoder.features([_waveform(wav, self.min_samples)])[0]

    def encode(self, wav: np.ndarray | Tensor) -> np.ndarray:
        """Maps one waveform to units, (T,) to (U,) int64; raises ValueError as `features` does."""
        return self.kmeans.assign(self.features(wav)).cpu().numpy()

    def encode_batch(self, wavs: Sequence[Tensor]) -> list[np.ndarray]:
        """Maps waveforms (T,) to units (U,) int64; the units of each do not depend on the others."""
        return [self.kmeans.assign(frames).cpu().numpy() for frames in self.encoder.features(wavs)]


CHUNK = 6000  # units encoded together, a minute at 100 Hz
CONTEXT = 100  # units on either side, more than the receptive field: chunks change no unit


class VqvaeUnits:
    """Speech to units by a content VQ-VAE, with the interface of `ContentEncoder`."""

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
        """Maps (T,) samples at 16 kHz to (T // unit_hop,) int64 units; samples left over get no unit.
        Raises ValueError if the waveform is not of one dimension, or too short for a unit."""
        wav, hop, units = _waveform(wav, self.min_samples).to(self.device), self.unit_hop, []
        for chunk in plan_chunks(len(wav) // hop, CHUNK + 2 * CONTEXT, CONTEXT):
            piece = wav[chunk.start * hop : chunk.stop * hop]
            units.append(self.vqvae.encode(piece[None, None])[0][chunk.kept])
        return torch.cat(units).cpu().numpy()

    def encode_batch(self, wavs: Sequence[Tensor]) -> list[np.ndarray]:
        """Maps waveforms (T,) to units (U,) int64; the units of each do not depend on the others."""
        return [self.encode(wav) for wav in wavs]
