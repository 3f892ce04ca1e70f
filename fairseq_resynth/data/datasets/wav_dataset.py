"""Random crops of recordings, for the content VQ-VAE."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairseq_resynth.data.datasets.base import UtteranceDataset, crop_start
from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.packed import open_audio


class WavDataset(UtteranceDataset):
    """The recordings of one split: crops of `segment_size` samples, a multiple of the `stride` samples per
    unit.

    `seed` is that of the crops and of the order; `moving` means that each epoch has other crops.
    """

    def __init__(
        self, data: str | Path, split: str, stride: int, segment_size: int, seed: int, moving: bool
    ):
        if segment_size < stride or segment_size % stride:
            raise ValueError(
                f"--segment-size is {segment_size} samples, expected a multiple of {stride}."
            )
        self.split = split
        self.segment_size, self.stride, self.moving = segment_size, stride, moving
        manifest = read_manifest(Path(data) / f"{split}.tsv")
        self.audio = open_audio(data, split, manifest)
        sizes = np.minimum(manifest.num_samples, segment_size) // stride
        super().__init__(manifest, sizes, moving, seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item {"id", "wav": (T,) float32}."""
        index = int(index)
        length = int(self.manifest.num_samples[index])
        epoch = self.epoch if self.moving else 0
        start = crop_start(length, self.segment_size, 1, self.seed, epoch, index)
        samples = min(length - start, self.segment_size)
        return {"id": index, "wav": torch.from_numpy(self.audio.read(index, start, samples))}

    def collater(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Batches crops, padded with silence to a whole number of units; empty for no items.

        {"id": (B,), "split": its name, "net_input": {"wav": (B, 1, T)}, "target": (B, 1, T)}
        """
        if not items:
            return {}
        wavs = [item["wav"] for item in items]
        wav = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        wav = torch.nn.functional.pad(wav, (0, -wav.size(1) % self.stride))[:, None]
        ids = torch.tensor([item["id"] for item in items])
        return {"id": ids, "split": self.split, "net_input": {"wav": wav}, "target": wav}
