"""Training the VQ-VAE of content units."""

from dataclasses import dataclass, field
from math import prod
from typing import Any, Dict

from fairseq.tasks import register_task

from fairseq_resynth.data.datasets.wav_dataset import WavDataset
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.options import parse_integers
from fairseq_resynth.tasks.unit_resynthesis import UnitResynthesisConfig, UnitResynthesisTask


@dataclass
class ContentQuantizationConfig(UnitResynthesisConfig):
    """Data and step of the training; the defaults are the paper's."""

    num_codes: int = field(
        default=256, metadata={"help": "size of the codebook: the number of units"}
    )
    encoder_strides: str = field(
        default="2,2,2,2,2,5",
        metadata={"help": "of the encoder's stages; the product is the samples of a unit"},
    )


@register_task("content_quantization", dataclass=ContentQuantizationConfig)
class ContentQuantizationTask(UnitResynthesisTask):
    """Speech in, units and speech out, by the same GAN step."""

    @property
    def streams(self) -> StreamSpec:
        """The units that the model makes."""
        stride = prod(parse_integers(self.cfg.encoder_strides, "encoder-strides"))
        return StreamSpec(stride, self.cfg.num_codes)

    def check_streams(self, state: Dict[str, Any]) -> None:
        """Refuses a checkpoint of another codebook.

        Raises:
            ValueError: what differs.
        """
        saved = StreamSpec.from_dict(state)
        if (saved.unit_hop, saved.num_units) != (self.streams.unit_hop, self.streams.num_units):
            raise ValueError(
                f"the checkpoint has {saved.num_units} codes of {saved.unit_hop} samples, the options ask "
                f"for {self.streams.num_units} of {self.streams.unit_hop}."
            )

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """There is nothing to take: the options say what the units are."""

    def load_dataset(self, split: str, combine: bool = False, **kwargs) -> None:
        """Loads a split: random crops for training, the same crops always otherwise."""
        self.datasets[split] = WavDataset(
            self.cfg.data,
            split,
            self.streams.unit_hop,
            self.cfg.segment_size,
            self.cfg.seed,
            split.startswith("train"),
        )

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Trains on a batch; a dummy batch (`ignore_grad`) does not move the codebook either."""
        model.content_vqvae.quantizer.counts_batches = not ignore_grad
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def build_generator(self, models, args, **kwargs):
        """Refused: `resynth export` makes a bundle, `resynth resynthesize` speaks with it."""
        raise ValueError(
            "a content VQ-VAE is not for fairseq-generate: `resynth export`, then `resynth resynthesize`."
        )
