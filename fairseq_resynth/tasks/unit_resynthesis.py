"""Training a unit vocoder, and synthesis by fairseq-generate."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II

from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.streams import StreamSpec, read_streams
from fairseq_resynth.modules.discriminators.base import freeze
from fairseq_resynth.tasks.capabilities import check_capabilities, training_device
from fairseq_resynth.tasks.gan_step import (
    autocast,
    compile_once,
    gan_step,
    refuse_settings,
    uncompiled,
)
from fairseq_resynth.tasks.validation import ValidationLog, log_measures, refuse_best_metric


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


@dataclass
class UnitResynthesisConfig(FairseqDataclass):
    """Data and step of the training; the defaults are the paper's."""

    data: str = field(
        default="",
        metadata={
            "help": "directory with {train,valid,test}.tsv, .units and, if wanted, .f0, .speaker"
        },
    )
    streams: str = field(
        default="auto",
        metadata={
            "help": "streams to train on, some of units,f0,speaker,style; auto: every one that DATA has"
        },
    )
    segment_size: int = field(
        default=8960,
        metadata={"help": "samples of a random crop, a multiple of the streams' hops (1280)"},
    )
    unit_hop: int = field(
        default=0,
        metadata={"help": "samples a unit, for units made elsewhere; 0: as units.json says"},
    )
    num_units: int = field(
        default=0,
        metadata={
            "help": "size of the unit table, for units made elsewhere; 0: as units.json says"
        },
    )
    speaker_input: str = field(
        default="table",
        metadata={
            "help": "table: a row for each speaker; vector: the vectors of `resynth speakers`, which "
            "voices that were never trained on have too"
        },
    )
    speaker_mean_rate: float = field(
        default=0.5,
        metadata={
            "help": "with vectors, how often a crop has its speaker's mean instead of its utterance's "
            "own, so that both work (0 to 1)"
        },
    )
    sample_rate: int = field(default=16000, metadata={"help": "Hz; 16000 is the only rate so far"})
    autocast: str = field(
        default="float32",
        metadata={
            "help": "precision of the forward passes: float32 or bfloat16 (weights stay float32)"
        },
    )
    gan_update: str = field(
        default="alternate",
        metadata={
            "help": "alternate: the discriminators step, then judge again for the generator, as published; "
            "simultaneous: one pass of theirs serves both steps"
        },
    )
    compile: bool = field(
        default=False,
        metadata={
            "help": "train the networks compiled (torch.compile, one size of crop and batch): equal but for "
            "rounding, and worth its minutes of compiling in a long training"
        },
    )
    eval_audio: int = field(
        default=5,
        metadata={
            "help": "utterances of the valid split, spread evenly, whose F0 errors and mel L1 are measured "
            "at each validation (vde, gpe, ffe, log_f0_rmse, log_f0_correlation, mel_l1, for "
            "--best-checkpoint-metric too) and which TensorBoard shows; 0: none"
        },
    )
    wav_format: str = field(
        default="PCM_16",
        metadata={
            "help": "sample format of the wavs that fairseq-generate writes: PCM_16 or FLOAT"
        },
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
    ddp_backend: str = II("distributed_training.ddp_backend")
    zero_sharding: str = II("distributed_training.zero_sharding")


COMPARED = (
    "unit_hop num_units num_f0_codes f0_channels speakers speaker_dim styles".split()
)  # what the sizes of the tables depend on


@register_task("unit_resynthesis", dataclass=UnitResynthesisConfig)
class UnitResynthesisTask(FairseqTask):
    """Units, pitch codes and speaker in, speech out."""

    def __init__(self, cfg: UnitResynthesisConfig):
        super().__init__(cfg)
        self._streams: Optional[StreamSpec] = None
        self._criterion = None
        self._source_f0 = False
        self._validation_log = ValidationLog(cfg.data, cfg.tensorboard_logdir, cfg.eval_audio)

    @classmethod
    def setup_task(cls, cfg: UnitResynthesisConfig, **kwargs) -> "UnitResynthesisTask":
        """Checks the settings and builds the task.

        Raises:
            ValueError: settings that a GAN cannot be trained with here.
        """
        if cfg.sample_rate != 16000:
            raise ValueError(f"--sample-rate is {cfg.sample_rate}, expected 16000 Hz.")
        if not 0 <= cfg.speaker_mean_rate <= 1:
            raise ValueError(f"--speaker-mean-rate is {cfg.speaker_mean_rate}, expected 0 to 1.")
        autocast(torch.device("cpu"), cfg.autocast)
        if not kwargs.get("from_checkpoint"):
            refuse_settings(
                {key: getattr(cfg, key) for key in UnitResynthesisConfig.__annotations__}
            )
            refuse_best_metric(
                cfg.best_checkpoint_metric, cfg.maximize_best_checkpoint_metric, cfg.eval_audio
            )
            check_capabilities(training_device(cfg.cpu), cfg.autocast, cfg.compile)
        return cls(cfg)

    @property
    def streams(self) -> StreamSpec:
        """The streams of the checkpoint that was loaded, else of the data directory."""
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
        """Refuses a checkpoint whose tables mean other units, pitch codes or speakers.

        Raises:
            ValueError: the first thing that differs.
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
        """Returns what a checkpoint keeps of the task: its streams."""
        return {"streams": self.streams.to_dict()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Takes the streams from a checkpoint."""
        self._streams = StreamSpec.from_dict(state["streams"])

    def build_model(self, cfg, from_checkpoint=False):
        """Builds the model, whose kind says what its training needs."""
        model = super().build_model(cfg, from_checkpoint)
        self._source_f0 = getattr(model, "takes_source_f0", False)
        return model

    def load_dataset(self, split: str, combine: bool = False, **kwargs) -> None:
        """Loads a split: crops for training, whole utterances otherwise."""
        training = split.startswith("train") and "task_cfg" not in kwargs
        self.datasets[split] = UnitDataset(
            self.cfg.data,
            split,
            self.streams,
            self.cfg.segment_size if training else 0,
            self.cfg.seed,
            load_wav="task_cfg" not in kwargs,  # only fairseq-generate gives it
            speaker_mean_rate=self.cfg.speaker_mean_rate,
            source_f0=training and self._source_f0,
        )

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Steps the discriminators; leaves the generator's gradients to the trainer."""
        model.train()
        model.set_num_updates(update_num)
        self._validation_log.num_updates = update_num + 1
        self._criterion = criterion
        if self.cfg.compile:
            compile_once(model.waveform_generator, criterion.discriminators)
        settings = (self.cfg.autocast, ignore_grad, self.cfg.gan_update)
        return gan_step(sample, model, criterion, optimizer, update_num, *settings)

    def optimizer_step(self, optimizer, model, update_num) -> None:
        """Steps the generator, then gives the discriminators their gradients back."""
        optimizer.step()
        freeze(self._criterion.discriminators, False)

    def valid_step(self, sample, model, criterion):
        """Returns the mel L1 distance on whole utterances; measures and shows those of --eval-audio."""
        model.eval()
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
        """Starts a new set of shown utterances."""
        self._validation_log.begin()

    def max_positions(self) -> None:
        """Utterances of any length."""
        return None

    @property
    def source_dictionary(self) -> None:
        """There is no text."""
        return None

    @property
    def target_dictionary(self) -> Dictionary:
        """An empty dictionary, which fairseq-generate asks for."""
        return Dictionary()

    def build_generator(self, models, args, **kwargs) -> WavWriter:
        """Returns what fairseq-generate calls for each batch."""
        if not self.cfg.results_path:
            raise ValueError("--results-path is missing: the folder to write the wavs to.")
        split = next(iter(self.datasets))
        return WavWriter(self.cfg.results_path, self.datasets[split].manifest, self.cfg.wav_format)

    def inference_step(self, generator, models, sample, prefix_tokens=None, constraints=None):
        """Synthesises a batch and writes its wavs."""
        with torch.no_grad():
            return generator.generate(models, sample)
