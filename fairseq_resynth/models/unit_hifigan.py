"""The HiFi-GAN generator over units, pitch codes and speaker, as a fairseq model."""

from dataclasses import dataclass, field
from typing import List

from fairseq.models import register_model

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.models.unit_vocoder import UnitVocoder, UnitVocoderConfig, build_unit_generator
from fairseq_resynth.modules.generators.hifigan import HifiganGenerator
from fairseq_resynth.modules.unit_generator import UnitGenerator

# The paper's upsamplings (rates, kernels) by the samples of a frame; 80 is ours, for continuous F0.
UPSAMPLINGS = {
    320: ("5,4,4,2,2", "11,8,8,4,4"),
    160: ("5,4,2,2,2", "11,8,4,4,4"),
    80: ("5,4,2,2", "11,8,4,4"),
}


@dataclass
class UnitHifiganConfig(UnitVocoderConfig):
    """Sizes of the generator; the defaults are HiFi-GAN V1's, as in the paper."""

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
    activation: str = field(
        default="leaky-relu",
        metadata={
            "help": "before each convolution: leaky-relu, the paper's, or snake, which is periodic with a "
            "period learned for each channel (BigVGAN)"
        },
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


def build_generator(cfg: UnitHifiganConfig, streams: StreamSpec) -> UnitGenerator:
    """Builds the plain torch module for a configuration and the streams it is trained on.

    Raises:
        ValueError: sizes that do not fit each other or the streams.
    """
    rates, kernels = _upsampling(cfg, F0_HOP if streams.f0_channels else streams.unit_hop)
    dilations = [
        parse_sizes(sizes, "resblock-dilation-sizes")
        for sizes in cfg.resblock_dilation_sizes.split(";")
    ]
    return build_unit_generator(
        cfg,
        streams,
        lambda channels: HifiganGenerator(
            channels,
            rates,
            kernels,
            cfg.upsample_initial_channel,
            parse_sizes(cfg.resblock_kernel_sizes, "resblock-kernel-sizes"),
            dilations,
            cfg.activation,
        ),
    )


@register_model("unit_hifigan", dataclass=UnitHifiganConfig)
class UnitHifigan(UnitVocoder):
    """`UnitGenerator` over `HifiganGenerator`."""

    @classmethod
    def build_model(cls, cfg: UnitHifiganConfig, task) -> "UnitHifigan":
        """Builds the model for the streams of a task."""
        return cls(build_generator(cfg, task.streams))
