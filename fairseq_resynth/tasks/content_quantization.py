"""Training the VQ-VAE of content units."""

from dataclasses import dataclass
from math import prod
from typing import Any, Dict

from fairseq.tasks import register_task

from fairseq_resynth.data.datasets.wav_dataset import WavDataset
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.options import option, option_integers
from fairseq_resynth.tasks.unit_resynthesis import UnitResynthesisConfig, UnitResynthesisTask


@dataclass
class ContentQuantizationConfig(UnitResynthesisConfig):
    """Data and training step; the defaults are the paper's."""

    num_codes: int = option(256, "number of codes in the codebook, which is the number of units")
    encoder_strides: str = option(
        "2,2,2,2,2,5", "strides of the encoder's stages; the product is the samples per unit"
    )


@register_task("content_quantization", dataclass=ContentQuantizationConfig)
class ContentQuantizationTask(UnitResynthesisTask):
    """Speech in, units and speech out, by the same GAN step."""

    @property
    def streams(self) -> StreamSpec:
        """The units that the model makes, as the options describe them."""
        stride = prod(option_integers(self.cfg.encoder_strides, "encoder-strides"))
        return StreamSpec(stride, self.cfg.num_codes)

    def check_streams(self, state: Dict[str, Any]) -> None:
        """Raises ValueError if a checkpoint's codebook is not of the size that the options ask for."""
        saved, here = StreamSpec.from_dict(state), self.streams
        if (saved.unit_hop, saved.num_units) != (here.unit_hop, here.num_units):
            raise ValueError(
                f"the checkpoint has {saved.num_units} codes of {saved.unit_hop} samples, the options ask "
                f"for {here.num_units} of {here.unit_hop}."
            )

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Takes nothing from a checkpoint, since the options say what the units are."""

    def load_dataset(self, split: str, combine: bool = False, **kwargs) -> None:
        """Loads a split: random crops for training, otherwise crops that are always the same."""
        self.datasets[split] = WavDataset(
            self.cfg.data,
            split,
            self.streams.unit_hop,
            self.cfg.segment_size,
            self.cfg.seed,
            split.startswith("train"),
        )

    def update(self, sample, model, criterion, optimizer, update_num, ignore_grad):
        """Trains on a batch; a dummy batch (`ignore_grad`) does not move the codebook either."""
        model.content_vqvae.quantizer.counts_batches = not ignore_grad
        return super().update(sample, model, criterion, optimizer, update_num, ignore_grad)

    def build_generator(self, models, args, **kwargs):
        """Raises ValueError: fairseq-generate cannot synthesize with a content VQ-VAE."""
        raise ValueError(
            "fairseq-generate cannot synthesize with a content VQ-VAE: make a bundle with "
            "`resynth export`, then run `resynth resynthesize`."
        )
