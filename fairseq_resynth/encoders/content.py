"""Speech to content units: encoders by name with a k-means, a safetensors file, or a content VQ-VAE."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.numpy import save
from torch import Tensor

from fairseq_resynth.constants import FEATURE_TYPES, WITHOUT_WEIGHTS
from fairseq_resynth.data.storage.checkpoints import weights_hash
from fairseq_resynth.data.storage.files import atomic_path, file_hash, map_array, reading
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.encoders.frames import Device, FrameEncoder, plan_chunks, without_tf32
from fairseq_resynth.modules.quantizers import ContentVqvae

CHUNK = 6000  # units that a VQ-VAE encodes together, a minute at 100 Hz
CONTEXT = 100  # units on either side, more than the receptive field: chunks change no unit
PICKLE_ADVICE = (
    "Pickles of scikit-learn (joblib files such as GSLM's km.bin) run code when they are opened and are "
    'refused. Where you trust the file, save its centroids, `python -c "import joblib, numpy; '
    "numpy.save('km.npy', joblib.load('km.bin').cluster_centers_)\"`, and turn them into a k-means file: "
    "`resynth kmeans --centroids km.npy --feature-type T --content-checkpoint P --layer L --out FILE`."
)


class KMeans:
    """Centroids (K, D) float32 and the `FrameEncoder.description()` of their features. Raises ValueError if
    the centroids are not finite or not of two dimensions."""

    def __init__(self, centroids: np.ndarray, description: dict[str, Any]):
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        if self.centroids.ndim != 2 or not np.isfinite(self.centroids).all():
            raise ValueError(
                f"centroids: found an array {self.centroids.shape}, expected (K, D) finite numbers"
            )
        self.description = description
        self._on_device: tuple[Tensor, Tensor] | None = None

    @property
    def num_units(self) -> int:
        """The number of centroids K."""
        return len(self.centroids)

    def assign(self, features: Tensor) -> Tensor:
        """The nearest centroid of (U, D) features, (U,) int64 on their device; ValueError for another D."""
        if features.shape[-1] != self.centroids.shape[1]:
            raise ValueError(
                f"features have {features.shape[-1]} dimensions, the k-means {self.centroids.shape[1]}"
            )
        if self._on_device is None or self._on_device[0].device != features.device:
            centroids = torch.from_numpy(self.centroids).to(features.device, torch.float64)
            self._on_device = centroids.T.contiguous(), centroids.square().sum(1)
        transposed, squares = self._on_device
        # ||x - c||² without ||x||², in double precision so that near ties do not depend on rounding
        return (squares - 2 * (features.double() @ transposed)).argmin(dim=1)

    def save(self, path: str | Path) -> None:
        """Writes the safetensors file atomically; the description is JSON in its metadata."""
        # A single entry, since safetensors writes several in an order that changes from run to run.
        metadata = {"kmeans": json.dumps({**self.description, "num_clusters": self.num_units})}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save({"centroids": self.centroids}, metadata))


def load_kmeans(path: str | Path) -> KMeans:
    """Reads a k-means file of `resynth kmeans`; its description also has the file's name and hash. Raises
    FileNotFoundError if it does not exist, and ValueError if it is of another kind or lacks its
    description."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with `resynth kmeans`.")
    try:
        with safetensors.safe_open(path, "np") as stream:
            metadata, centroids = stream.metadata() or {}, stream.get_tensor("centroids")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a k-means file of `resynth kmeans` ({one_line(error)}). {PICKLE_ADVICE}"
        ) from error
    with reading(path, "a k-means", "Make it with `resynth kmeans`."):
        description = {**json.loads(metadata.get("kmeans", "{}"))}
    missing = {"feature_type", "layer", "unit_hop", "sample_rate"} - set(description)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: not made by `resynth kmeans`")
    return KMeans(centroids, description | {"kmeans": path.name, "kmeans_hash": file_hash(path)})


def require_same_features(kmeans: KMeans, description: dict[str, Any]) -> None:
    """Raises ValueError if a k-means was not fitted to the features of an encoder's description."""
    for name in ("feature_type", "layer", "checkpoint_hash", "unit_hop", "sample_rate"):
        made_from, found = kmeans.description.get(name), description.get(name)
        if made_from != found:
            raise ValueError(
                f"the k-means {kmeans.description.get('kmeans', '')} was made from {name} {made_from!r}, the "
                f"encoder has {found!r}. Give that encoder, or run `resynth kmeans` again."
            )


def read_centroids(path: str | Path) -> np.ndarray:
    """Reads centroids (K, D) that `numpy.save` wrote. Raises FileNotFoundError if the file does not exist,
    and ValueError if it is not an array of numbers."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with reading(path, "centroids", PICKLE_ADVICE):
        return map_array(path).astype(np.float32)


def build_encoder(
    feature_type: str,
    checkpoint_path: str | Path | None = None,
    layer: int | None = None,
    device: Device = "cpu",
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
    if wav.dim() != 1:
        raise ValueError(f"wav: found shape {tuple(wav.shape)}, expected (T,)")
    if len(wav) < min_samples:
        raise ValueError(
            f"too short: {len(wav)} samples at 16 kHz, expected {min_samples} (one frame of the content "
            "encoder) or more"
        )
    return wav


class ContentEncoder:
    """Speech to content units: frame features and the nearest centroid of each.

    A unit spans `unit_hop` samples, and speech needs `min_samples` to have one. `description` is the content
    of `units.json`: encoder, checkpoint, layer, k-means and their hashes. Raises ValueError if the k-means
    was fitted to features of another encoder or layer.
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
        device: Device = "cpu",
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
        features = self.encoder.features(wavs)
        if not features:
            return []
        units = self.kmeans.assign(torch.cat(features)).cpu().numpy()
        return np.split(units, np.cumsum([len(each) for each in features])[:-1])


class VqvaeUnits:
    """Speech to units by a content VQ-VAE, with the interface of `ContentEncoder`."""

    def __init__(self, vqvae: ContentVqvae, device: Device = "cpu"):
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

    @without_tf32()
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
