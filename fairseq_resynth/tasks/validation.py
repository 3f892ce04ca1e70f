"""Fixed utterances at each validation: F0 errors as metrics, audio and pictures in TensorBoard."""

import logging
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import numpy as np
import torch
from fairseq.logging import metrics

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.pitch.extraction import F0Cache, extract_f0
from fairseq_resynth.measures.pictures import spectrogram


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
            picture = spectrogram(wav, f0)
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


logger = logging.getLogger(__name__)

# Metric: (what an utterance counts for in the mean, the value when no utterance defines it: worse than any)
MEASURES = {
    "vde": ("frames", math.inf),
    "gpe": ("frames_both_voiced", math.inf),
    "ffe": ("frames", math.inf),
    "log_f0_rmse": ("frames_both_voiced", math.inf),
    "log_f0_correlation": ("utterances", -math.inf),
    "mel_l1": ("seconds", math.inf),
}


def refuse_best_metric(best_metric: str, maximize: bool, num_utterances: int) -> None:
    """Refuses settings under which the best checkpoint would be none or the worst.

    Args:
        best_metric: --best-checkpoint-metric.
        maximize: --maximize-best-checkpoint-metric.
        num_utterances: --eval-audio.

    Raises:
        ValueError: a negative number, a metric that is not measured, or the wrong direction.
    """
    if num_utterances < 0:
        raise ValueError(f"--eval-audio is {num_utterances}, expected 0 or more utterances.")
    if best_metric not in MEASURES:
        return
    if not num_utterances:
        raise ValueError(
            f"--best-checkpoint-metric {best_metric} is measured on the utterances of --eval-audio, which is "
            "0. Use --eval-audio 5, or --best-checkpoint-metric loss."
        )
    higher_is_better = MEASURES[best_metric][1] < 0
    if higher_is_better != maximize:
        change = "add" if higher_is_better else "leave out"
        better = "higher" if higher_is_better else "lower"
        raise ValueError(
            f"--best-checkpoint-metric {best_metric}: {better} is better, {change} "
            "--maximize-best-checkpoint-metric."
        )


def measured_rows(rows: int, number: int) -> Set[int]:
    """Returns `number` rows spread evenly over a split of `rows`, or all of it where it has fewer."""
    return set(np.linspace(0, rows - 1, min(rows, number)).round().astype(int).tolist())


class ReferenceF0:
    """F0 of recordings: out of `DATA/f0/` where `resynth f0` has filled it, else found once.

    Args:
        dataset: the split, of whole utterances.
        data: the data directory.
        split: its name.

    Attributes:
        options: how F0 is found, of the recordings and so of what is generated.
    """

    def __init__(self, dataset: UnitDataset, data: str, split: str):
        self.options: Dict[str, Any] = {}
        self._split = split
        self._cache: Optional[F0Cache] = None
        self._tracks: Dict[int, np.ndarray] = {}
        self._crops = dataset.crops  # whether crops are drawn anew for each validation
        # The F0 of the data directory is of whole utterances.
        if not dataset.segment_size and (Path(data) / "f0" / f"{split}.npy").is_file():
            try:
                self._cache = F0Cache(data, split, dataset.manifest)
            except (ValueError, FileNotFoundError) as error:
                logger.warning("F0 of the recordings is found anew: %s", error)
            else:
                names = ("method", "f0_min", "f0_max")
                self.options = {name: self._cache.description[name] for name in names}

    def track(self, row: int, real: np.ndarray) -> np.ndarray:
        """Returns (ceil(T / 80),) Hz of a row's (T,) samples, or less where the recording ends before."""
        if self._cache is not None:
            return self._cache.slice(row, 0, -(-len(real) // F0_HOP))
        if self._crops:
            return self.find(real, "recording", row)
        if row not in self._tracks:
            self._tracks[row] = self.find(real, "recording", row)
        return self._tracks[row]

    def find(self, wav: np.ndarray, kind: str, row: int) -> np.ndarray:
        """Finds F0 of (T,) samples as `options` say; where that fails, warns, and all is unvoiced."""
        try:
            return extract_f0(wav, **self.options)
        except ValueError as error:
            what = f"{self._split}, row {row + 1}, {kind}"
            logger.warning("%s: no F0, counted as unvoiced: %s", what, error)
            return np.zeros(-(-len(wav) // F0_HOP), dtype=np.float32)


def generate_row(sample: Dict[str, Any], row: int, model) -> Tuple[np.ndarray, np.ndarray]:
    """Returns a batch's row without padding: recording and generated speech, both (T,).

    The model is called outside its DistributedDataParallel wrapper: processes have different numbers of rows.
    """
    while hasattr(model, "module"):
        model = model.module
    inputs = {name: value[row : row + 1] for name, value in sample["net_input"].items()}
    real = sample["target"][row, 0]
    lengths = inputs.pop("unit_lengths", None)
    if lengths is not None:
        units = int(lengths[0])
        real = real[: real.size(0) // inputs["units"].size(1) * units]
        inputs["units"] = inputs["units"][:, :units]
    fake = model(**inputs).float()[0, 0]
    return real.float().cpu().numpy(), fake.cpu().numpy()


def measure(
    real: np.ndarray, fake: np.ndarray, real_f0: np.ndarray, fake_f0: np.ndarray
) -> Dict[str, float]:
    """Returns {sum_x, weight_x} of every metric x of `MEASURES`; waveforms (T,), tracks (N,) in Hz."""
    from fairseq_resynth.measures.f0_errors import f0_errors
    from fairseq_resynth.measures.spectral import mel_l1_distance

    values = f0_errors(real_f0, fake_f0)
    values["mel_l1"] = mel_l1_distance(real, fake)
    values["seconds"] = len(real) / SAMPLE_RATE
    values["utterances"] = float(not math.isnan(values["log_f0_correlation"]))
    sums = {}
    for name, (weight, _) in MEASURES.items():
        sums[f"weight_{name}"] = float(values[weight])
        sums[f"sum_{name}"] = values[name] * values[weight] if values[weight] else 0.0
    return sums


def nothing_measured() -> Dict[str, float]:
    """Returns the sums of no utterance: fairseq needs every batch to have the same keys."""
    return {f"{kind}_{name}": 0.0 for name in MEASURES for kind in ("sum", "weight")}


def log_measures(logging_outputs: List[Dict[str, Any]]) -> None:
    """Logs the means over what was measured; a metric that no utterance defines is infinitely bad."""
    if not any("weight_ffe" in log for log in logging_outputs):
        return
    for name, (_, undefined) in MEASURES.items():
        total, weight = (
            float(sum(log.get(f"{kind}_{name}", 0) for log in logging_outputs))
            for kind in ("sum", "weight")
        )
        metrics.log_scalar(name, total / weight if weight else undefined, weight, round=4)
