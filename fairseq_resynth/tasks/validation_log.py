"""Fixed utterances at each validation: F0 errors as metrics, audio and pictures in TensorBoard."""

import io
from typing import Any, Dict, Optional, Set, Tuple

import numpy as np
import torch
from PIL import Image

from fairseq_resynth.data.audio import SAMPLE_RATE
from fairseq_resynth.data.unit_dataset import UnitDataset
from fairseq_resynth.evaluation.drawing import spectrogram_png
from fairseq_resynth.tasks.validation_measures import (
    ReferenceF0,
    generate_row,
    measure,
    measured_rows,
    nothing_measured,
)


class ValidationLog:
    """Measures some utterances of each validation and writes them to TensorBoard.

    Args:
        data: the data directory, whose F0 cache is used.
        folder: fairseq's --tensorboard-logdir; None: nothing is written.
        num_utterances: how many of each valid split, spread evenly over it.

    Attributes:
        num_updates: step that the next validation is shown at.
    """

    def __init__(self, data: str, folder: Optional[str], num_utterances: int):
        self.data = data
        self.folder = folder
        self.num_utterances = num_utterances
        self.num_updates = 0
        self._writer = None
        self._references: Dict[str, ReferenceF0] = {}
        self._done: Set[Tuple[str, int]] = set()
        self._recordings: Set[Tuple[str, int]] = set()

    def begin(self) -> None:
        """Starts a validation."""
        self._done = set()

    @torch.no_grad()
    def evaluate(self, sample: Dict[str, Any], dataset: UnitDataset, model) -> Dict[str, float]:
        """Measures and shows those utterances of a batch that are among the fixed ones.

        Args:
            sample: the batch.
            dataset: the split that it is of.
            model: with or without its DistributedDataParallel wrapper.

        Returns:
            Sums and weights for `log_measures`, to be added up over batches and processes.
        """
        sums, split = nothing_measured(), dataset.split
        if split not in self._references:
            self._references[split] = ReferenceF0(dataset, self.data, split)
        reference = self._references[split]
        wanted = measured_rows(len(dataset), self.num_utterances)
        for place, row in enumerate(sample["id"].tolist()):
            if row not in wanted or (split, row) in self._done:
                continue
            self._done.add((split, row))
            real, fake = generate_row(sample, place, model)
            tracks = reference.track(row, real), reference.find(fake, "generated", row)
            for name, value in measure(real, fake, *tracks).items():
                sums[name] += value
            if self.folder:
                self._write((split, row), (real, fake), tracks)
        return sums

    def _write(
        self,
        key: Tuple[str, int],
        wavs: Tuple[np.ndarray, np.ndarray],
        tracks: Tuple[np.ndarray, np.ndarray],
    ) -> None:
        kinds = ["real", "generated"]
        if key in self._recordings:  # once: a recording does not change
            kinds, wavs, tracks = kinds[1:], wavs[1:], tracks[1:]
        self._recordings.add(key)
        writer = self._open()
        for kind, wav, f0 in zip(kinds, wavs, tracks, strict=True):
            tag = f"{key[0]}_{key[1]}/{kind}"
            writer.add_audio(tag, wav, self.num_updates, SAMPLE_RATE)
            picture = _spectrogram(wav, f0)
            writer.add_image(f"{tag}_spectrogram_f0", picture, self.num_updates, dataformats="HWC")
        writer.flush()

    def _open(self):
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # TensorBoard follows one file a folder, and processes have utterances of their own.
            distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = torch.distributed.get_rank() if distributed else 0
            suffix = f"_rank{rank}" if rank else ""
            self._writer = SummaryWriter(f"{self.folder}/valid_utterances{suffix}")
        return self._writer


def _spectrogram(wav: np.ndarray, f0: np.ndarray) -> np.ndarray:
    png = spectrogram_png(wav, f0=f0)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
