"""The Vocos generator over units, pitch codes and speaker, as a fairseq model."""

from dataclasses import dataclass, field

from fairseq.models import register_model

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.models.unit_vocoder import (
    UnitVocoder,
    UnitVocoderConfig,
    build_unit_generator,
    other_sizes,
)
from fairseq_resynth.modules.generators.vocos import VocosGenerator
from fairseq_resynth.modules.unit_generator import UnitGenerator


@dataclass
class UnitVocosConfig(UnitVocoderConfig):
    """Sizes of the generator; the defaults are Vocos's."""

    frame_hop: int = field(
        default=0,
        metadata={
            "help": "samples of a frame, which divide the hop of every stream; 0: the units' hop"
        },
    )
    n_fft: int = field(
        default=0, metadata={"help": "samples of a spectrum's window; 0: four times the frame's"}
    )
    dim: int = field(default=512, metadata={"help": "channels of the backbone"})
    intermediate_dim: int = field(
        default=1536, metadata={"help": "channels inside the backbone's blocks"}
    )
    num_layers: int = field(default=8, metadata={"help": "blocks of the backbone"})


def build_generator(cfg: UnitVocosConfig, streams: StreamSpec) -> UnitGenerator:
    """Builds the plain torch module for a configuration and the streams it is trained on.

    Raises:
        ValueError: sizes that do not fit each other or the streams.
    """
    hop = cfg.frame_hop or streams.unit_hop
    return build_unit_generator(
        cfg,
        streams,
        lambda channels: VocosGenerator(
            channels, hop, cfg.dim, cfg.intermediate_dim, cfg.num_layers, cfg.n_fft
        ),
    )


@register_model("unit_vocos", dataclass=UnitVocosConfig)
class UnitVocos(UnitVocoder):
    """`UnitGenerator` over `VocosGenerator`."""

    @classmethod
    def build_model(cls, cfg: UnitVocosConfig, task) -> "UnitVocos":
        """Builds the model for the streams of a task."""
        return cls(build_generator(cfg, task.streams))


UnitVocosSmallConfig = other_sizes(
    UnitVocosConfig,
    "UnitVocosSmallConfig",
    embedding_dim=64,
    dim=256,
    intermediate_dim=768,
    num_layers=5,
)


@register_model("unit_vocos_small", dataclass=UnitVocosSmallConfig)
class UnitVocosSmall(UnitVocos):
    """2.7 M parameters, for the demo and small machines."""
