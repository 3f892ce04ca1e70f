"""The HiFi-GAN generator over units, pitch codes and speaker, as a fairseq model."""

from dataclasses import dataclass, field
from typing import List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from fairseq_resynth.data.streams import Streams
from fairseq_resynth.modules.duration_predictor import DurationPredictor, duration_loss, find_runs
from fairseq_resynth.modules.hifigan import HifiganGenerator
from fairseq_resynth.modules.unit_generator import UnitGenerator

# The paper's upsamplings (rates, kernels) by the samples of a unit.
UPSAMPLINGS = {320: ("5,4,4,2,2", "11,8,8,4,4"), 160: ("5,4,2,2,2", "11,8,4,4,4")}


@dataclass
class UnitHifiganConfig(FairseqDataclass):
    """Sizes of the generator; the defaults are HiFi-GAN V1's, as in the paper."""

    embedding_dim: int = field(
        default=128, metadata={"help": "channels of each embedded stream (units, pitch, speaker)"}
    )
    upsample_rates: str = field(
        default="",
        metadata={
            "help": "factor of each upsampling stage, as 5,4,4,2,2; the product is the samples of a "
            "frame and divides the hop of every stream; empty: by the units' hop (320 or 160 samples)"
        },
    )
    upsample_kernel_sizes: str = field(
        default="", metadata={"help": "kernel size of each upsampling stage, as 11,8,8,4,4"}
    )
    upsample_initial_channel: int = field(
        default=512, metadata={"help": "channels before the first upsampling, halved by each"}
    )
    resblock_kernel_sizes: str = field(
        default="3,7,11", metadata={"help": "kernel sizes of the residual blocks after each stage"}
    )
    resblock_dilation_sizes: str = field(
        default="1,3,5;1,3,5;1,3,5", metadata={"help": "dilations of each of these blocks"}
    )
    duration_predictor: bool = field(
        default=False,
        metadata={"help": "also learn how long each unit lasts, to speak units without repeats"},
    )
    duration_hidden_dim: int = field(
        default=128, metadata={"help": "channels of the duration predictor's convolutions"}
    )
    duration_kernel_size: int = field(
        default=3, metadata={"help": "kernel size of the duration predictor's convolutions"}
    )
    duration_dropout: float = field(
        default=0.5, metadata={"help": "dropout of the duration predictor"}
    )


def parse_sizes(text: str, option: str) -> List[int]:
    """Parses "5,4,4,2,2".

    Raises:
        ValueError: something else than integers; the message names the option.
    """
    try:
        return [int(word) for word in str(text).split(",")]
    except ValueError as error:
        raise ValueError(f"--{option} is {text!r}, expected integers as in 5,4,4,2,2.") from error


def _upsampling(cfg: UnitHifiganConfig, unit_hop: int) -> List[List[int]]:
    rates, kernels = cfg.upsample_rates, cfg.upsample_kernel_sizes
    if not rates and not kernels:
        if unit_hop not in UPSAMPLINGS:
            raise ValueError(
                f"units of {unit_hop} samples have no default upsampling: give --upsample-rates and "
                "--upsample-kernel-sizes, whose product divides it."
            )
        rates, kernels = UPSAMPLINGS[unit_hop]
    if not rates or not kernels:
        raise ValueError("give --upsample-rates and --upsample-kernel-sizes together.")
    return [
        parse_sizes(rates, "upsample-rates"),
        parse_sizes(kernels, "upsample-kernel-sizes"),
    ]


def build_generator(cfg: UnitHifiganConfig, streams: Streams) -> UnitGenerator:
    """Builds the plain torch module for a configuration and the streams it is trained on.

    Raises:
        ValueError: sizes that do not fit each other or the streams.
    """
    tables = {
        "num_f0_codes": streams.num_f0_codes,
        "f0_channels": streams.f0_channels,
        "num_speakers": 0 if streams.speaker_dim else len(streams.speakers),
        "speaker_dim": streams.speaker_dim,
        "num_styles": len(streams.styles),
    }
    rates, kernels = _upsampling(cfg, streams.unit_hop)
    generator = HifiganGenerator(
        UnitGenerator.frame_channels(**tables, embedding_dim=cfg.embedding_dim),
        rates,
        kernels,
        cfg.upsample_initial_channel,
        parse_sizes(cfg.resblock_kernel_sizes, "resblock-kernel-sizes"),
        [
            parse_sizes(dilations, "resblock-dilation-sizes")
            for dilations in cfg.resblock_dilation_sizes.split(";")
        ],
    )
    return UnitGenerator(
        generator,
        streams.num_units,
        streams.unit_hop,
        f0_code_hop=streams.f0_code_hop,
        embedding_dim=cfg.embedding_dim,
        duration_predictor=_duration_predictor(cfg),
        **tables,
    )


def _duration_predictor(cfg: UnitHifiganConfig) -> Optional[DurationPredictor]:
    if not cfg.duration_predictor:
        return None
    return DurationPredictor(
        cfg.embedding_dim, cfg.duration_hidden_dim, cfg.duration_kernel_size, cfg.duration_dropout
    )


@register_model("unit_hifigan", dataclass=UnitHifiganConfig)
class UnitHifigan(BaseFairseqModel):
    """fairseq's wrapper of `UnitGenerator`: a checkpoint's `model` holds its weights and nothing else."""

    def __init__(self, unit_generator: UnitGenerator):
        super().__init__()
        self.unit_generator = unit_generator

    @classmethod
    def build_model(cls, cfg: UnitHifiganConfig, task) -> "UnitHifigan":
        """Builds the model for the streams of a task."""
        return cls(build_generator(cfg, task.streams))

    def forward(
        self,
        units: Tensor,
        f0_codes: Optional[Tensor] = None,
        speaker: Optional[Tensor] = None,
        unit_lengths: Optional[Tensor] = None,
        f0: Optional[Tensor] = None,
    ) -> Tensor:
        """Generates (B, 1, T); see `UnitGenerator.forward`."""
        return self.unit_generator(units, f0_codes, speaker, f0, unit_lengths)

    def duration_loss(
        self, units: Tensor, unit_lengths: Optional[Tensor] = None
    ) -> Optional[Tensor]:
        """Returns the duration predictor's loss on (B, U) units of crops, None without a predictor."""
        if self.unit_generator.duration_predictor is None:
            return None
        collapsed, counts, num_runs = find_runs(units, unit_lengths)
        log_counts = self.unit_generator.log_durations(collapsed, num_runs)
        return duration_loss(log_counts, counts, num_runs)

    def prepare_for_inference_(self, cfg) -> None:
        """Folds weight norm away; fairseq-generate calls this."""
        self.eval()
        self.unit_generator.generator.remove_weight_norm()
