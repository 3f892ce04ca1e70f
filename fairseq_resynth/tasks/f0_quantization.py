"""Training the F0 VQ-VAE."""

from dataclasses import dataclass

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import register_task
from omegaconf import II

from fairseq_resynth.data.datasets.f0_dataset import F0Dataset
from fairseq_resynth.data.manifest import require_data_directory
from fairseq_resynth.modules.options import option
from fairseq_resynth.tasks.utterances import UtteranceTask


@dataclass
class F0QuantizationConfig(FairseqDataclass):
    """Data of the training; the defaults are the paper's."""

    data: str = option("", "directory with {train,valid}.tsv, .speaker, f0/ and speakers.json")
    segment_size: int = option(
        16640, "samples of a random crop (1.04 s), a multiple of the codes' hop (1280)"
    )
    seed: int = II("common.seed")
    num_downsamples: int = II("model.num_downsamples")
    f0_input: str = II("model.f0_input")


@register_task("f0_quantization", dataclass=F0QuantizationConfig)
class F0QuantizationTask(UtteranceTask):
    """Normalized F0 in, codes and F0 out."""

    target_dictionary = None  # fairseq's criterions ask for one, and there is no text

    @classmethod
    def setup_task(cls, cfg: F0QuantizationConfig, **kwargs) -> "F0QuantizationTask":
        """Builds the task. Raises FileNotFoundError if the data directory does not exist."""
        if not kwargs.get("from_checkpoint"):  # loading a checkpoint reads no data
            require_data_directory(cfg.data)
        return cls(cfg)

    def load_dataset(self, split: str, combine: bool = False, **kwargs) -> None:
        """Loads a split: crops for training, whole utterances otherwise."""
        segment_size = self.cfg.segment_size if split.startswith("train") else 0
        self.datasets[split] = F0Dataset(
            self.cfg.data,
            split,
            2**self.cfg.num_downsamples,
            segment_size,
            self.cfg.seed,
            log_voicing=self.cfg.f0_input == "log_voicing",
        )

    def update(self, sample, model, criterion, optimizer, update_num, ignore_grad):
        """Trains on a batch; a dummy batch (`ignore_grad`) does not move the codebook either."""
        model.f0_vqvae.quantizer.counts_batches = not ignore_grad
        return super().update(sample, model, criterion, optimizer, update_num, ignore_grad)
