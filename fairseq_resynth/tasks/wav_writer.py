"""Writes what a model synthesises in fairseq-generate."""

from pathlib import Path
from typing import Any

import torch

from fairseq_resynth.data.audio import write_audio
from fairseq_resynth.data.manifest import Manifest


class WavWriter:
    """Generates batches and writes one wav a row, under the row's own path.

    Args:
        folder: where to write.
        manifest: of the split.
        subtype: `PCM_16` or `FLOAT`.
    """

    # fairseq-generate asks for this of its sequence generators
    symbols_to_strip_from_output: set[int] = set()

    def __init__(self, folder: str | Path, manifest: Manifest, subtype: str):
        self.folder = Path(folder)
        self.manifest = manifest
        self.subtype = subtype

    def generate(self, models: list, sample: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Synthesises and writes a batch.

        Returns:
            One empty hypothesis a row: fairseq-generate prints text, and there is none.

        Raises:
            ValueError: more than one model.
        """
        if len(models) != 1:
            raise ValueError(f"--path names {len(models)} models: waveforms cannot be averaged.")
        wavs = models[0](**sample["net_input"])[:, 0].float().cpu()
        lengths = sample["net_input"].get("unit_lengths")
        units = sample["net_input"]["units"].size(1)
        hypotheses = []
        for row, index in enumerate(sample["id"].tolist()):
            samples = wavs.size(1)
            if lengths is not None:
                samples = samples // units * int(lengths[row])
            path = self.folder / f"{self.manifest.name(index)}.wav"
            write_audio(path, wavs[row, :samples].numpy(), subtype=self.subtype)
            hypotheses.append([_empty_hypothesis()])
        return hypotheses


def _empty_hypothesis() -> dict[str, Any]:
    return {
        "tokens": torch.zeros(0, dtype=torch.int64),
        "score": 0.0,
        "alignment": None,
        "positional_scores": torch.zeros(0),
    }
