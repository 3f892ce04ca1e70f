"""Training a unit vocoder, and synthesis by fairseq-generate."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import register_task
from omegaconf import II

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.datasets.base import whole_units
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.manifest import Manifest, require_data_directory
from fairseq_resynth.data.storage.files import check_file_name
from fairseq_resynth.data.streams import STREAM_NAMES, StreamSpec, read_streams
from fairseq_resynth.modules.discriminators.base import freeze
from fairseq_resynth.modules.options import option
from fairseq_resynth.tasks.gan_step import CompiledStep, GanStep, autocast, uncompiled
from fairseq_resynth.tasks.step_graphs import StepGraphs
from fairseq_resynth.tasks.training_checks import (
    check_compiler,
    check_graphs,
    check_precision,
    check_recordable,
    check_settings,
    check_shapes,
)
from fairseq_resynth.tasks.utterances import UtteranceTask
from fairseq_resynth.tasks.validation import ValidationLog, check_best_metric, log_measures


class WavWriter:
    """Synthesizes batches for fairseq-generate and writes one wav per row, under the row's own path.

    `subtype` is `PCM_16` or `FLOAT`. Raises ValueError if a row's path cannot be that of a file in `folder`.
    """

    # fairseq-generate asks every sequence generator for this
    symbols_to_strip_from_output: set[int] = set()

    def __init__(self, folder: str | Path, manifest: Manifest, subtype: str):
        self.folder = Path(folder)
        self.manifest = manifest
        self.subtype = subtype
        for row in range(len(manifest)):
            check_file_name(manifest.name(row), ".wav")

    def generate(self, models: list, sample: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Synthesizes and writes a batch. Raises ValueError if there is more than one model.

        Returns one empty hypothesis per row, since fairseq-generate prints text and there is none.
        """
        if len(models) != 1:
            raise ValueError(f"--path names {len(models)} models: waveforms cannot be averaged.")
        wavs = models[0](**sample["net_input"])[:, 0].float().cpu()
        lengths = sample["net_input"].get("unit_lengths")
        units = sample["net_input"]["units"].size(1)
        hypothesis = {
            "tokens": torch.zeros(0, dtype=torch.int64),
            "score": 0.0,
            "alignment": None,
            "positional_scores": torch.zeros(0),
        }
        hypotheses = []
        for row, index in enumerate(sample["id"].tolist()):
            wav = wavs[row]
            if lengths is not None:
                wav = wav[: len(wav) // units * int(lengths[row])]
            path = self.folder / f"{self.manifest.name(index)}.wav"
            write_audio(path, wav.numpy(), subtype=self.subtype)
            hypotheses.append([dict(hypothesis)])
        return hypotheses


SEGMENT_SIZE = 8960  # samples, the paper's crop


@dataclass
class UnitResynthesisConfig(FairseqDataclass):
    """Data and training step; the defaults are the paper's."""

    data: str = option(
        "",
        "directory with {train,valid,test}.tsv, .units and optionally .f0, .speaker and named tokens",
    )
    streams: str = option(
        "auto",
        f"streams to train on, some of {','.join(STREAM_NAMES)}; auto: every stream that DATA has",
    )
    segment_size: int = option(
        SEGMENT_SIZE,
        "samples of a random crop, a multiple of the units' hop; the default is rounded to one",
    )
    unit_hop: int = option(
        0, "samples per unit, for units made elsewhere; 0: the value in units.json"
    )
    num_units: int = option(
        0, "size of the unit table, for units made elsewhere; 0: the value in units.json"
    )
    speaker_input: str = option(
        "table",
        "table: one row per speaker; vector: the vectors of `resynth speakers`, which exist for "
        "speakers outside the training data too",
    )
    speaker_mean_rate: float = option(
        0.5,
        "with --speaker-input vector, the probability (0 to 1) that a crop gets the mean vector of its "
        "speaker instead of the vector of its utterance, so that both work",
    )
    sample_rate: int = option(SAMPLE_RATE, "Hz; 16000 is the only rate so far")
    autocast: str = option(
        "float32", "precision of the forward passes: float32 or bfloat16 (weights stay float32)"
    )
    gan_update: str = option(
        "alternate",
        "alternate: the discriminators step, then score the generated speech again for the generator, as "
        "published; simultaneous: one pass of the discriminators serves both steps",
    )
    compile: bool = option(
        False,
        "train networks and losses compiled by torch.compile (for one size of crop and batch): equal except "
        "for rounding; the minutes of compiling, which are logged, pay in a long training",
    )
    cuda_graphs: bool = option(
        False,
        "record the forward and backward passes of a step as CUDA graphs (for one size of crop and batch) "
        "and replay them: equal except for rounding, and faster where a GPU waits for its next kernel",
    )
    eval_audio: int = option(
        5,
        "number of utterances of the valid split, spread evenly, whose F0 errors and mel L1 are measured "
        "at each validation (vde, gpe, ffe, log_f0_rmse, log_f0_correlation, mel_l1, for "
        "--best-checkpoint-metric too) and which TensorBoard shows; 0: none",
    )
    wav_format: str = option(
        "PCM_16", "sample format of the wavs that fairseq-generate writes: PCM_16 or FLOAT"
    )
    seed: int = II("common.seed")
    cpu: bool = II("common.cpu")
    results_path: Optional[str] = II("common_eval.results_path")
    tensorboard_logdir: Optional[str] = II("common.tensorboard_logdir")
    update_freq: List[int] = II("optimization.update_freq")
    fp16: bool = II("common.fp16")
    bf16: bool = II("common.bf16")
    amp: bool = II("common.amp")
    memory_efficient_fp16: bool = II("common.memory_efficient_fp16")
    memory_efficient_bf16: bool = II("common.memory_efficient_bf16")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")
    batch_size: Optional[int] = II("dataset.batch_size")
    ddp_backend: str = II("distributed_training.ddp_backend")
    distributed_world_size: int = II("distributed_training.distributed_world_size")
    zero_sharding: str = II("distributed_training.zero_sharding")


# what the sizes of the tables depend on
COMPARED = "unit_hop num_units num_f0_codes f0_channels speakers speaker_dim tokens".split()


@register_task("unit_resynthesis", dataclass=UnitResynthesisConfig)
class UnitResynthesisTask(UtteranceTask):
    """Units, pitch codes and speaker in, speech out."""

    source_dictionary = None  # fairseq-generate asks for both, and there is no text
    target_dictionary = Dictionary()

    def __init__(self, cfg: UnitResynthesisConfig):
        super().__init__(cfg)
        self._streams: Optional[StreamSpec] = None
        self._criterion = None
        self._source_f0 = False
        graphs = StepGraphs() if cfg.cuda_graphs else None
        self._step = GanStep(cfg.autocast, cfg.gan_update, cfg.compile, graphs)
        self._compiled = CompiledStep() if cfg.compile else None
        self._validation_log = ValidationLog(cfg.data, cfg.tensorboard_logdir, cfg.eval_audio)

    @classmethod
    def setup_task(cls, cfg: UnitResynthesisConfig, **kwargs) -> "UnitResynthesisTask":
        """Checks the settings and builds the task.

        Raises ValueError if a GAN cannot be trained with these settings on this machine, and
        FileNotFoundError if the data directory does not exist.
        """
        if cfg.sample_rate != SAMPLE_RATE:
            raise ValueError(f"--sample-rate is {cfg.sample_rate}, expected {SAMPLE_RATE} Hz.")
        if not 0 <= cfg.speaker_mean_rate <= 1:
            raise ValueError(f"--speaker-mean-rate is {cfg.speaker_mean_rate}, expected 0 to 1.")
        autocast(torch.device("cpu"), cfg.autocast)
        if not kwargs.get("from_checkpoint"):  # loading a checkpoint trains nothing
            require_data_directory(cfg.data)
            check_settings(cfg)
            check_best_metric(
                cfg.best_checkpoint_metric, cfg.maximize_best_checkpoint_metric, cfg.eval_audio
            )
            # where fairseq's trainer will put the networks
            device = torch.device("cuda" if torch.cuda.is_available() and not cfg.cpu else "cpu")
            check_precision(device, cfg.autocast)
            if cfg.cuda_graphs:
                check_graphs(cfg, device)
            if cfg.compile:
                check_compiler(device)
        return cls(cfg)

    @property
    def streams(self) -> StreamSpec:
        """The streams of the checkpoint that was loaded, otherwise of the data directory."""
        if self._streams is None:
            self._streams = read_streams(
                self.cfg.data,
                self.cfg.streams,
                unit_hop=self.cfg.unit_hop,
                num_units=self.cfg.num_units,
                speaker_input=self.cfg.speaker_input,
            )
        return self._streams

    def check_streams(self, state: Dict[str, Any]) -> None:
        """Raises ValueError if the tables of a checkpoint mean other units, pitch codes or speakers.

        The message names the first difference.
        """
        saved, here = StreamSpec.from_dict(state), self.streams
        saved.check_same_encoders(Path(self.cfg.data))
        for name in COMPARED:
            if getattr(saved, name) != getattr(here, name):
                raise ValueError(
                    f"the checkpoint was trained with {name} {getattr(saved, name)}, {self.cfg.data} has "
                    f"{getattr(here, name)}. Use another --save-dir, or --restore-file of this data."
                )

    def state_dict(self) -> Dict[str, Any]:
        """What a checkpoint stores of the task: its streams."""
        return {"streams": self.streams.to_dict()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Takes the streams from a checkpoint."""
        self._streams = StreamSpec.from_dict(state["streams"])

    def build_model(self, cfg, from_checkpoint=False):
        """Builds the model and asks whether it trains on the F0 of recordings.

        Raises ValueError if its step cannot be recorded with --cuda-graphs.
        """
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.cuda_graphs and not from_checkpoint:
            check_recordable(model)
        self._source_f0 = getattr(model, "takes_source_f0", False)
        return model

    def load_dataset(self, split: str, combine: bool = False, **kwargs) -> None:
        """Loads a split: crops for training, whole utterances otherwise."""
        generating = "task_cfg" in kwargs  # only fairseq-generate gives it
        training = split.startswith("train") and not generating
        segment_size = self.cfg.segment_size if training else 0
        if segment_size == SEGMENT_SIZE:
            segment_size = whole_units(segment_size, self.streams.unit_hop)
        self.datasets[split] = UnitDataset(
            self.cfg.data,
            split,
            self.streams,
            segment_size,
            self.cfg.seed,
            load_wav=not generating,
            speaker_mean_rate=self.cfg.speaker_mean_rate,
            source_f0=training and self._source_f0,
        )
        if training:
            self._check_shapes(self.datasets[split].lengths)

    def _check_shapes(self, lengths: np.ndarray) -> None:
        for name in ("compile", "cuda_graphs"):
            if getattr(self.cfg, name):
                option = f"--{name.replace('_', '-')}"
                check_shapes(lengths, self.cfg.segment_size, self.cfg.batch_size or 1, option)

    def update(self, sample, model, criterion, optimizer, update_num, ignore_grad):
        """Steps the discriminators; leaves the generator's gradients to the trainer."""
        model.train()
        model.set_num_updates(update_num)
        self._validation_log.num_updates = update_num + 1
        self._criterion = criterion
        # Crops have one size, for which cuDNN chooses its kernels once; utterances of a validation do not.
        torch.backends.cudnn.benchmark = True
        step = self._step if self._compiled is None else partial(self._compiled, self._step)
        arguments = (sample, model, criterion, optimizer, update_num, ignore_grad)
        try:
            return step(*arguments)
        except torch.OutOfMemoryError:
            pass  # what the step had allocated is free only after this block
        raise ValueError(self._step.out_of_memory(*arguments[:3], update_num))

    def optimizer_step(self, optimizer, model, update_num) -> None:
        """Steps the generator, then unfreezes the discriminators, which `gan_step` froze.

        They must not stay frozen: the trainer leaves frozen parameters out of an optimizer that it builds.
        """
        optimizer.step()
        freeze(self._criterion.discriminators, False)

    def validate(self, sample, model, criterion):
        """Returns the mel L1 distance on whole utterances; measures and shows those of --eval-audio."""
        model.eval()
        torch.backends.cudnn.benchmark = False
        device = sample["target"].device
        with torch.no_grad(), uncompiled(), autocast(device, self.cfg.autocast):
            result = criterion(model, sample)
            if self.cfg.eval_audio:
                dataset = self.datasets[sample["split"]]
                result[2].update(self._validation_log.evaluate(sample, dataset, model))
        return result

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """Logs the criterion's terms, and at validation the measures of --eval-audio."""
        super().reduce_metrics(logging_outputs, criterion)
        log_measures(logging_outputs)

    def begin_valid_epoch(self, epoch, model) -> None:
        """Starts a validation."""
        self._validation_log.begin()

    def build_generator(self, models, args, **kwargs) -> WavWriter:
        """Builds what fairseq-generate calls for each batch; raises ValueError without --results-path."""
        if not self.cfg.results_path:
            raise ValueError("--results-path is missing: the folder to write the wavs to.")
        split = next(iter(self.datasets))
        return WavWriter(self.cfg.results_path, self.datasets[split].manifest, self.cfg.wav_format)

    def inference_step(self, generator, models, sample, prefix_tokens=None, constraints=None):
        """Synthesizes a batch and writes its wavs."""
        with torch.no_grad():
            return generator.generate(models, sample)
