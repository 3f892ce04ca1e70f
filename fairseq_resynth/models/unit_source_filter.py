"""Pulses and noise, filtered, over units, pitch codes and speaker, as a fairseq model."""

from dataclasses import dataclass, field
from math import gcd

from fairseq.models import register_model

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.models.unit_vocoder import (
    UnitVocoder,
    UnitVocoderConfig,
    build_unit_generator,
    other_sizes,
)
from fairseq_resynth.modules.generators.source_filter import SourceFilterGenerator
from fairseq_resynth.modules.unit_generator import UnitGenerator

FRAME_HOP = 160  # samples


@dataclass
class UnitSourceFilterConfig(UnitVocoderConfig):
    """Sizes of the generator."""

    frame_hop: int = field(
        default=0,
        metadata={
            "help": "samples of a frame, a multiple of 80 that divides the hop of every stream; 0: 160, or "
            "80 for continuous F0"
        },
    )
    n_fft: int = field(
        default=0,
        metadata={"help": "samples of a window, a multiple of the frame's; 0: 640, 40 ms"},
    )
    dim: int = field(default=512, metadata={"help": "channels of the backbone"})
    intermediate_dim: int = field(
        default=1536, metadata={"help": "channels inside the backbone's blocks"}
    )
    num_layers: int = field(default=8, metadata={"help": "blocks of the backbone"})


def build_generator(cfg: UnitSourceFilterConfig, streams: StreamSpec) -> UnitGenerator:
    """Builds the plain torch module for a configuration and the streams it is trained on.

    Raises:
        ValueError: sizes that do not fit each other or the streams.
    """
    hop = cfg.frame_hop or (F0_HOP if streams.f0_channels else gcd(streams.unit_hop, FRAME_HOP))
    pitch = streams.f0_channels or (cfg.embedding_dim if streams.num_f0_codes else 0)
    voice = cfg.embedding_dim if streams.speakers or streams.speaker_dim else 0
    # A model without a pitch stream makes its melody up from the units.
    first = cfg.embedding_dim if pitch else 0
    channels = (first, cfg.embedding_dim + pitch + voice)
    return build_unit_generator(
        cfg,
        streams,
        lambda in_channels: SourceFilterGenerator(
            in_channels, channels, hop, cfg.dim, cfg.intermediate_dim, cfg.num_layers, cfg.n_fft
        ),
    )


@register_model("unit_source_filter", dataclass=UnitSourceFilterConfig)
class UnitSourceFilter(UnitVocoder):
    """`UnitGenerator` over `SourceFilterGenerator`."""

    @classmethod
    def build_model(cls, cfg: UnitSourceFilterConfig, task) -> "UnitSourceFilter":
        """Builds the model for the streams of a task."""
        return cls(build_generator(cfg, task.streams))


UnitSourceFilterSmallConfig = other_sizes(
    UnitSourceFilterConfig,
    "UnitSourceFilterSmallConfig",
    embedding_dim=64,
    dim=256,
    intermediate_dim=768,
    num_layers=6,
)


@register_model("unit_source_filter_small", dataclass=UnitSourceFilterSmallConfig)
class UnitSourceFilterSmall(UnitSourceFilter):
    """3 M parameters, for small machines."""
