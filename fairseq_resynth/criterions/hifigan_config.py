"""Options of the criterion `hifigan`."""

from dataclasses import dataclass, field

from fairseq.dataclass import FairseqDataclass
from omegaconf import II


@dataclass
class HifiganCriterionConfig(FairseqDataclass):
    """Weights of the terms; the defaults are the paper's."""

    mel_weight: float = field(default=45.0, metadata={"help": "weight of the mel L1 distance"})
    feature_matching_weight: float = field(
        default=2.0, metadata={"help": "weight of the feature matching loss"}
    )
    adversarial_weight: float = field(
        default=1.0, metadata={"help": "weight of the generator's adversarial loss"}
    )
    discriminators: str = field(
        default="mpd,msd",
        metadata={
            "help": "families of discriminators, with commas: mpd (periods) and msd (scales) of the paper, "
            "mrd (magnitudes at three resolutions, UnivNet), msstft (complex spectra at five windows, "
            "EnCodec), mbstft (complex spectra in five bands, DAC), cqt (constant-Q octaves)"
        },
    )
    discriminator_width: float = field(
        default=1.0,
        metadata={
            "help": "factor on the discriminators' channels; 1 is the paper's 70.7 M parameters"
        },
    )
    mel_loss: str = field(
        default="single",
        metadata={
            "help": "mel distance to train on: single, the paper's 80 bands, or multi, the mean over seven "
            "windows of 32 to 2048 samples with 5 to 320 bands; validation is always single"
        },
    )
    adversarial_loss: str = field(
        default="least-squares",
        metadata={"help": "least-squares, the paper's, or hinge"},
    )
    clip_norm_d: float = field(
        default=0.0,
        metadata={"help": "gradient norm to clip the discriminators at; 0: not clipped"},
    )
    duration_weight: float = field(
        default=1.0,
        metadata={"help": "weight of the duration predictor's loss, with --duration-predictor"},
    )
    discriminator_start: int = field(
        default=0,
        metadata={
            "help": "updates that the generator first trains on the mel distance alone, without the "
            "discriminators; 0, the paper: none"
        },
    )
    commitment_weight: float = field(
        default=0.02, metadata={"help": "weight of a content VQ-VAE's commitment loss"}
    )
    pitch_weight: float = field(
        default=1.0,
        metadata={
            "help": "weight of unit_source_filter's F0: semitones off and bits of voicing, summed"
        },
    )
    sample_rate: int = II("task.sample_rate")
    reset_optimizer: bool = II("checkpoint.reset_optimizer")
