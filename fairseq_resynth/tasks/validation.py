"""Fixed utterances at each validation: F0 errors as metrics, audio and pictures in TensorBoard."""

import io
import logging
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import numpy as np
import torch
from fairseq.logging import metrics
from PIL import Image

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.criterions.hifigan import LOGGED
from fairseq_resynth.data.datasets.base import UtteranceDataset
from fairseq_resynth.data.pitch.extraction import F0Cache, extract_f0
from fairseq_resynth.measures.f0_errors import f0_errors
from fairseq_resynth.measures.pictures import spectrogram_png
from fairseq_resynth.measures.spectral import mel_l1_distance

logger = logging.getLogger(__name__)

Pair = Tuple[np.ndarray, np.ndarray]  # of the recording and of the generated speech
# Metric: (the weight of an utterance in the mean, the value if no utterance defines it: worse than any)
MEASURES = {
    "vde": ("frames", math.inf),
    "gpe": ("frames_both_voiced", math.inf),
    "ffe": ("frames", math.inf),
    "log_f0_rmse": ("frames_both_voiced", math.inf),
    "log_f0_correlation": ("utterances", -math.inf),
    "mel_l1": ("seconds", math.inf),
}


class ReferenceF0:
    """F0 of recordings: from `data`/f0/ if `resynth f0` has filled it, otherwise extracted once.

    `options` says how F0 is extracted from recordings and therefore also from generated speech.
    """

    def __init__(self, dataset: UtteranceDataset, data: str):
        self.options: Dict[str, Any] = {}
        self._split = dataset.split
        self._random_crops = dataset.crops
        self._cache: Optional[F0Cache] = None
        self._tracks: Dict[int, np.ndarray] = {}
        # The F0 of the data directory is of whole utterances.
        if not dataset.segment_size and (Path(data) / "f0" / f"{self._split}.npy").is_file():
            try:
                self._cache = F0Cache(data, self._split, dataset.manifest)
            except (ValueError, FileNotFoundError) as error:
                logger.warning("F0 of the recordings is extracted again: %s", error)
            else:
                names = ("method", "f0_min", "f0_max")
                self.options = {name: self._cache.description[name] for name in names}

    def track(self, row: int, real: np.ndarray) -> np.ndarray:
        """The F0 of a row's samples (T,): (ceil(T / 80),) Hz, or fewer frames if the cache has fewer."""
        if self._cache is not None:
            return self._cache.slice(row, 0, -(-len(real) // F0_HOP))
        # A random crop is another part of the recording at each validation.
        if self._random_crops or row not in self._tracks:
            self._tracks[row] = self.extract(real, "recording", row)
        return self._tracks[row]

    def extract(self, wav: np.ndarray, kind: str, row: int) -> np.ndarray:
        """Extracts the F0 of samples (T,); if that fails, logs a warning and returns unvoiced frames."""
        try:
            return extract_f0(wav, **self.options)
        except ValueError as error:
            where = f"{self._split}, row {row + 1}, {kind}"
            logger.warning("%s: no F0, counted as unvoiced: %s", where, error)
            return np.zeros(-(-len(wav) // F0_HOP), dtype=np.float32)


class ValidationLog:
    """Measures some utterances of each validation and writes them to TensorBoard.

    `data` is the data directory, whose F0 is used; nothing is written if `folder`, fairseq's
    --tensorboard-logdir, is None; `num_utterances` are spread evenly over each valid split.
    """

    def __init__(self, data: str, folder: Optional[str], num_utterances: int):
        self.data, self.folder, self.num_utterances = data, folder, num_utterances
        self.num_updates = 0  # the step at which TensorBoard shows the next validation
        self._writer = None
        self._references: Dict[str, ReferenceF0] = {}  # kept over all validations
        self._done: Set[Tuple[str, int]] = set()
        self._recordings: Set[Tuple[str, int]] = set()

    def begin(self) -> None:
        """Starts a validation."""
        self._done = set()

    @torch.no_grad()
    def evaluate(
        self, sample: Dict[str, Any], dataset: UtteranceDataset, model
    ) -> Dict[str, float]:
        """Measures and shows those utterances of a batch that belong to the fixed ones.

        The model may be in its DistributedDataParallel wrapper. Returns sums and weights for `log_measures`,
        to be added up over batches and processes.
        """
        sums, split = nothing_measured(), dataset.split
        if split not in self._references:
            self._references[split] = ReferenceF0(dataset, self.data)
        reference = self._references[split]
        measured = measured_rows(len(dataset), self.num_utterances)
        for place, row in enumerate(sample["id"].tolist()):
            # A row can come twice: fairseq validates dummy batches, which repeat the first one.
            if row not in measured or (split, row) in self._done:
                continue
            self._done.add((split, row))
            real, fake = generate_row(sample, place, model)
            tracks = reference.track(row, real), reference.extract(fake, "generated", row)
            for name, value in measure(real, fake, *tracks).items():
                sums[name] += value
            if self.folder:
                self._write((split, row), (real, fake), tracks)
        return sums

    def _write(self, key: Tuple[str, int], wavs: Pair, tracks: Pair) -> None:
        kinds = ["real", "generated"]
        if key in self._recordings:  # once, since a recording does not change
            kinds, wavs, tracks = kinds[1:], wavs[1:], tracks[1:]
        self._recordings.add(key)
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # TensorBoard follows one file per folder, and each process has utterances of its own.
            distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = torch.distributed.get_rank() if distributed else 0
            suffix = f"_rank{rank}" if rank else ""
            self._writer = SummaryWriter(f"{self.folder}/valid_utterances{suffix}")
        for kind, wav, f0 in zip(kinds, wavs, tracks, strict=True):
            tag = f"{key[0]}_{key[1]}/{kind}"
            self._writer.add_audio(tag, wav, self.num_updates, SAMPLE_RATE)
            png = io.BytesIO(spectrogram_png(wav, f0=f0))
            picture = np.asarray(Image.open(png).convert("RGB"))
            self._writer.add_image(
                f"{tag}_spectrogram_f0", picture, self.num_updates, dataformats="HWC"
            )
        self._writer.flush()


def check_best_metric(best_metric: str, maximize: bool, num_utterances: int) -> None:
    """Checks that the best checkpoint can be chosen, and that it will not be the worst one.

    Raises ValueError if the number of utterances (--eval-audio) is negative, the metric not measured or its
    direction wrong.
    """
    if num_utterances < 0:
        raise ValueError(f"--eval-audio is {num_utterances}, expected 0 or more utterances.")
    if best_metric in LOGGED:
        return
    if best_metric not in MEASURES:
        raise ValueError(
            f"--best-checkpoint-metric {best_metric} is not measured, expected loss or one of "
            f"{', '.join(MEASURES)}."
        )
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
    """`number` rows spread evenly over a split of `rows`, or all rows if it has fewer."""
    return set(np.linspace(0, rows - 1, min(rows, number)).round().astype(int).tolist())


def generate_row(sample: Dict[str, Any], row: int, model) -> Pair:
    """The recording and the generated speech of a batch's row without padding, both (T,)."""
    # Outside its DistributedDataParallel wrapper, since processes have different numbers of rows.
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
    """{sum_x, weight_x} of every metric x of `MEASURES`; waveforms (T,), tracks (N,) in Hz."""
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
    """The sums of no utterance, since fairseq needs the same keys from every batch."""
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
