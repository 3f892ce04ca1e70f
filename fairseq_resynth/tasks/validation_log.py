"""Audio, spectrogram and F0 of fixed utterances in TensorBoard, real beside generated."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from fairseq_resynth.data.audio import SAMPLE_RATE
from fairseq_resynth.evaluation.drawing import spectrogram_png


class ValidationLog:
    """Writes the first utterances of each validation.

    Args:
        folder: fairseq's --tensorboard-logdir; None: nothing is written.
        num_utterances: how many of the valid split, its first rows.

    Attributes:
        num_updates: step that the next validation is shown at.
    """

    def __init__(self, folder: str | None, num_utterances: int):
        self.folder = folder
        self.num_utterances = num_utterances
        self.num_updates = 0
        self._writer = None
        self._shown: set[int] = set()
        self._recordings: set[int] = set()

    def begin(self) -> None:
        """Starts a validation."""
        self._shown = set()

    @torch.no_grad()
    def show(self, sample: dict[str, Any], model) -> None:
        """Shows those utterances of a batch that are among the first rows of the split."""
        if not self.folder or not sample:
            return
        for row, index in enumerate(sample["id"].tolist()):
            if index < self.num_utterances and index not in self._shown:
                self._shown.add(index)
                inputs, real = _row(sample, row)
                fake = model(**inputs).float()
                self._write(index, real.cpu().numpy(), fake[0, 0].cpu().numpy())

    def _write(self, index: int, real: np.ndarray, fake: np.ndarray) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(f"{self.folder}/valid_utterances")
        wavs = {"generated": fake}
        if (
            index not in self._recordings
        ):  # once: a recording does not change, and its F0 takes time
            self._recordings.add(index)
            wavs["real"] = real
        for kind, wav in wavs.items():
            tag = f"utterance_{index}/{kind}"
            self._writer.add_audio(tag, wav, self.num_updates, SAMPLE_RATE)
            picture = _spectrogram(wav)
            self._writer.add_image(
                f"{tag}_spectrogram_f0", picture, self.num_updates, dataformats="HWC"
            )
        self._writer.flush()


def _row(sample: dict[str, Any], row: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    inputs = {name: value[row : row + 1] for name, value in sample["net_input"].items()}
    lengths = inputs.pop("unit_lengths", None)
    real = sample["target"][row, 0]
    if lengths is not None:
        units = int(lengths[0])
        real = real[: real.size(0) // inputs["units"].size(1) * units]
        inputs["units"] = inputs["units"][:, :units]
    return inputs, real


def _spectrogram(wav: np.ndarray) -> np.ndarray:
    from fairseq_resynth.data.f0 import extract_f0  # slow to import, and only needed here

    try:
        f0 = extract_f0(wav)
    except ValueError:  # an untrained model's output may have no pitch to track
        f0 = None
    png = spectrogram_png(wav, f0=f0)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
