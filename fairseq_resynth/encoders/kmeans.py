"""Centroids of frame features, in a safetensors file with the description of the features."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.numpy import save_file
from torch import Tensor

from fairseq_resynth.data.storage.files import atomic_path, file_hash

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
            save_file({"centroids": self.centroids}, temporary, metadata)


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
            f"{path} is not a k-means file of `resynth kmeans` ({error}). {PICKLE_ADVICE}"
        ) from error
    description = json.loads(metadata.get("kmeans", "{}"))
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
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a .npy array of numbers ({error}). {PICKLE_ADVICE}"
        ) from error
