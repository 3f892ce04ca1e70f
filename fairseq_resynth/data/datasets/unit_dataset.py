"""The dataset of unit vocoders: aligned units, pitch, speaker and waveform, for fairseq."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.datasets.base import UtteranceDataset, check_segment_size, crop_start
from fairseq_resynth.data.datasets.conditioning import SourceF0
from fairseq_resynth.data.datasets.unit_split import UnitSplit
from fairseq_resynth.data.packed import open_audio
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.data.units import IntegerRows


class UnitDataset(UnitSplit, UtteranceDataset):
    """One split of a data directory, as `UnitSplit`.

    An utterance is as long as its units; samples after the last unit (less than a unit and 50 ms) are
    not used.

    Args:
        data, split, streams: as for `UnitSplit`.
        segment_size: samples of a random crop, in whole units; 0: whole utterances, in order of length.
        seed: seed of the crops and of the order.
        load_wav: whether items have the waveform.
        speaker_mean_rate: probability that a crop has its speaker's mean vector instead of its own, 0 to 1.
        source_f0: whether items have the recording's F0, for a generator that learns to predict it.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        streams: StreamSpec,
        segment_size: int = 0,
        seed: int = 1,
        load_wav: bool = True,
        speaker_mean_rate: float = 0.5,
        source_f0: bool = False,
    ):
        UnitSplit.__init__(
            self, data, split, streams, speaker_mean_rate if segment_size else None, seed
        )
        data = Path(data)
        self.segment_size = segment_size
        self.load_wav = load_wav
        if segment_size:
            f0_code_hop = streams.f0_code_hop if streams.num_f0_codes else 0
            self.step = check_segment_size(segment_size, streams.unit_hop, f0_code_hop)
            if source_f0 or streams.f0_channels:
                self.step = math.lcm(self.step, F0_HOP)
        self.audio = open_audio(data, split, self.manifest)
        self.source_f0 = SourceF0(data, split, self.manifest) if source_f0 else None
        self.lengths = self.units.lengths * streams.unit_hop
        limit = segment_size or self.lengths.max(initial=0)
        sizes = np.minimum(self.lengths, limit) // streams.unit_hop
        UtteranceDataset.__init__(self, self.manifest, sizes, segment_size > 0, seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item as tensors, shaped as in `collater` without the batch."""
        index, hop = int(index), self.streams.unit_hop
        length, start = int(self.lengths[index]), 0
        if self.segment_size:
            start = crop_start(length, self.segment_size, self.step, self.seed, self.epoch, index)
            length = min(length - start, self.segment_size)
        item = {"id": index, "units": self._crop(self.units, index, start, length, hop)}
        if self.f0_codes is not None:
            code_hop = self.streams.f0_code_hop
            item["f0_codes"] = self._crop(self.f0_codes, index, start, length, code_hop)
        for name, tracks in (("f0", self.f0), ("source_f0", self.source_f0)):
            if tracks is not None:
                item[name] = tracks.crop(index, start, length)
        if self.speakers is not None:
            item["speaker"] = self.speakers.tensor(index, self.epoch)
        for name, rows in self.tokens.items():
            item[name] = torch.tensor(int(rows[index]))
        if self.load_wav:
            samples = min(length, int(self.manifest.num_samples[index]) - start)
            wav = torch.from_numpy(self.audio.read(index, start, samples))
            item["wav"] = torch.nn.functional.pad(wav, (0, length - samples))
        return item

    @staticmethod
    def _crop(rows: IntegerRows, index: int, start: int, length: int, hop: int) -> torch.Tensor:
        return torch.from_numpy(rows.slice(index, start // hop, -(-length // hop)))

    def collater(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Batches items, padded with zeros; empty for no items.

        {"id": (B,), "split": its name, "net_input": {"units": (B, U), "f0_codes": (B, F) or "f0": (B, C,
        N), "source_f0": (B, 2, N), "speaker": (B,) or (B, D), named tokens as "style": (B,), "unit_lengths":
        (B,) when lengths differ}, "target": (B, 1, T) or None}
        """
        if not items:
            return {}
        net_input: dict[str, torch.Tensor] = {"units": _pad([item["units"] for item in items])}
        if self.f0_codes is not None:
            net_input["f0_codes"] = _pad([item["f0_codes"] for item in items])
        for name in ("f0", "source_f0"):
            if name in items[0]:
                net_input[name] = _pad([item[name].T for item in items]).transpose(1, 2)
        for name in ("speaker", *self.tokens):
            if name in items[0]:
                net_input[name] = torch.stack([item[name] for item in items])
        lengths = [len(item["units"]) for item in items]
        if min(lengths) != max(lengths):
            net_input["unit_lengths"] = torch.tensor(lengths)
        target = _pad([item["wav"] for item in items])[:, None] if self.load_wav else None
        ids = torch.tensor([item["id"] for item in items])
        return {"id": ids, "split": self.split, "net_input": net_input, "target": target}


def _pad(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
