"""Normalized pitch tracks of utterances, for the F0 VQ-VAE."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.datasets.base import UtteranceDataset, crop_start
from fairseq_resynth.data.manifest import read_manifest, read_names
from fairseq_resynth.data.pitch.extraction import F0Cache
from fairseq_resynth.data.pitch.representations import ContinuousF0, ZscoreF0
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics


class F0Dataset(UtteranceDataset):
    """The F0 of one split at 200 Hz, z-scored by speaker; unvoiced frames are 0.

    Args:
        data: the data directory, with `f0/`, `speakers.json` and `{split}.speaker`.
        split: `train`, `valid`, …
        stride: F0 frames per code.
        segment_size: samples of a random crop; 0: whole utterances.
        seed: seed of the crops and of the order.
        log_voicing: use two channels, log-F0 interpolated over unvoiced frames and a voicing flag.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        stride: int,
        segment_size: int = 0,
        seed: int = 1,
        log_voicing: bool = False,
    ):
        data = Path(data)
        frame_step = stride * F0_HOP
        if segment_size % frame_step:
            raise ValueError(
                f"--segment-size is {segment_size} samples, expected a multiple of {frame_step} "
                f"({stride} F0 frames per code)."
            )
        self.split = split
        self.stride = stride
        self.representation = ContinuousF0() if log_voicing else ZscoreF0()
        self.segment_frames = segment_size // F0_HOP
        manifest = read_manifest(data / f"{split}.tsv")
        self.cache = F0Cache(data, split, manifest)
        self.statistics = SpeakerStatistics.load(data / "speakers.json")
        self.speakers = read_names(data / f"{split}.speaker", len(manifest))
        self.lengths = self.cache.lengths
        limit = self.segment_frames or self.lengths.max(initial=0)
        sizes = np.minimum(self.lengths, limit)
        super().__init__(manifest, sizes, segment_size > 0, seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item {"id", "f0": (n, C) float32 normalized, C 1 or 2}."""
        index = int(index)
        length, start = int(self.lengths[index]), 0
        if self.segment_frames:
            start = crop_start(
                length, self.segment_frames, self.stride, self.seed, self.epoch, index
            )
            length = min(length - start, self.segment_frames)
        # The whole row is encoded, since the unvoiced ends of a crop are interpolated from frames outside it.
        values = self.representation.encode(
            self.cache[index], self.statistics.entry(self.speakers[index])
        )
        return {"id": index, "f0": torch.from_numpy(values[:, start : start + length].T)}

    def collater(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Batches pitch tracks, padded with unvoiced frames to a whole number of codes; empty for no items.

        {"id": (B,), "split": its name, "net_input": {"f0": (B, C, N), "mask": (B, N / stride) bool,
        False for codes of padding}, "target": (B, C, N)}
        """
        if not items:
            return {}
        f0 = pad_sequence([item["f0"] for item in items], batch_first=True)
        f0 = torch.nn.functional.pad(f0, (0, 0, 0, -f0.size(1) % self.stride)).transpose(1, 2)
        codes = torch.tensor([-(-len(item["f0"]) // self.stride) for item in items])
        mask = torch.arange(f0.size(2) // self.stride) < codes[:, None]
        ids = torch.tensor([item["id"] for item in items])
        net_input = {"f0": f0, "mask": mask}
        return {"id": ids, "split": self.split, "net_input": net_input, "target": f0}
