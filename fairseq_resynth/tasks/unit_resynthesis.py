"""Training a unit vocoder, and synthesis by fairseq-generate."""

from pathlib import Path
from typing import Any, Dict, Optional

import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask, register_task

from fairseq_resynth.data.streams import Streams, read_streams
from fairseq_resynth.data.unit_dataset import UnitDataset
from fairseq_resynth.modules.discriminators import freeze
from fairseq_resynth.tasks.capabilities import check_capabilities, training_device
from fairseq_resynth.tasks.compilation import compile_once, uncompiled
from fairseq_resynth.tasks.gan_step import autocast, gan_step, refuse_settings
from fairseq_resynth.tasks.unit_resynthesis_config import UnitResynthesisConfig
from fairseq_resynth.tasks.validation_log import ValidationLog
from fairseq_resynth.tasks.validation_measures import log_measures, refuse_best_metric
from fairseq_resynth.tasks.wav_writer import WavWriter

COMPARED = (
    "unit_hop num_units num_f0_codes f0_channels speakers speaker_dim styles".split()
)  # what the sizes of the tables depend on


@register_task("unit_resynthesis", dataclass=UnitResynthesisConfig)
class UnitResynthesisTask(FairseqTask):
    """Units, pitch codes and speaker in, speech out."""

    def __init__(self, cfg: UnitResynthesisConfig):
        super().__init__(cfg)
        self._streams: Optional[Streams] = None
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
    def streams(self) -> Streams:
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
        saved, here = Streams.from_dict(state), self.streams
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
        self._streams = Streams.from_dict(state["streams"])

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
            compile_once(model.unit_generator.generator, criterion.discriminators)
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
