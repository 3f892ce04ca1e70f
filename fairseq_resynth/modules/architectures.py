"""The unit vocoders by the name that `fairseq-train --arch` takes: their sizes, and how they are built.

A new waveform generator needs a file in `generators/` with the network and its sizes, and here a class of
all sizes, which builds the generator, and an entry of `ARCHITECTURES`. The fairseq models are made from those
entries.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

from torch import nn

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.modules.duration_predictor import DurationPredictor
from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, HifiganSizes
from fairseq_resynth.modules.generators.source_filter import (
    SourceFilterGenerator,
    SourceFilterSizes,
)
from fairseq_resynth.modules.generators.vocos import VocosGenerator, VocosSizes
from fairseq_resynth.modules.options import option
from fairseq_resynth.modules.unit_generator import Streams, UnitGenerator, frame_channels


@dataclass
class UnitVocoderSizes:
    """Sizes that do not depend on the waveform generator; the defaults are the paper's. Subclasses have
    `build_generator`, which takes the streams and the channels of a frame."""

    embedding_dim: int = option(
        128, "channels of each embedded stream (units, pitch, speaker, style, language)"
    )
    duration_predictor: bool = option(
        False, "also learn how long each unit lasts, to speak units without repeats"
    )
    duration_hidden_dim: int = option(128, "channels of the duration predictor's convolutions")
    duration_kernel_size: int = option(
        3, "kernel size of the duration predictor's convolutions, in units"
    )
    duration_dropout: float = option(0.5, "dropout of the duration predictor, in [0, 1)")
    duration_condition: str = option(
        "speaker",
        "what the predicted durations depend on in addition to the units: speaker (if the data has a "
        "speaker stream) or none",
    )


@dataclass
class UnitHifiganSizes(UnitVocoderSizes, HifiganSizes):
    """All sizes of `unit_hifigan`; the defaults are HiFi-GAN V1's, as in the paper."""

    def build_generator(self, streams: Streams, channels: int) -> nn.Module:
        """The generator on frames of so many channels."""
        return HifiganGenerator(channels, self, _common_hop(streams))


@dataclass
class UnitVocosSizes(UnitVocoderSizes, VocosSizes):
    """All sizes of `unit_vocos`; the defaults are Vocos's."""

    def build_generator(self, streams: Streams, channels: int) -> nn.Module:
        """The generator on frames of so many channels."""
        return VocosGenerator(channels, self, _common_hop(streams))


@dataclass
class UnitSourceFilterSizes(UnitVocoderSizes, SourceFilterSizes):
    """All sizes of `unit_source_filter`."""

    def build_generator(self, streams: Streams, channels: int) -> nn.Module:
        """The generator on frames of so many channels."""
        pitch = streams.f0_channels or (self.embedding_dim if streams.num_f0_codes else 0)
        voice = self.embedding_dim if streams.has_speaker else 0
        # A model without a pitch stream predicts its F0 from the units, the first channels of a frame.
        first = self.embedding_dim if pitch else 0
        pitch_channels = (first, self.embedding_dim + pitch + voice)
        return SourceFilterGenerator(channels, pitch_channels, self, _common_hop(streams))


def _common_hop(streams: Streams) -> int:
    """The longest frame, in samples, of which every stream's hop is a multiple."""
    codes_hop = streams.f0_code_hop if streams.num_f0_codes else 0
    return gcd(streams.unit_hop, F0_HOP if streams.f0_channels else codes_hop)


class Architecture(NamedTuple):
    """One value of `--arch`: its sizes, and those whose default differs from that of the class."""

    sizes: type[UnitVocoderSizes]
    defaults: dict[str, int] = {}


_SMALL = {"embedding_dim": 64, "dim": 256, "intermediate_dim": 768}

# Of several architectures with the same sizes, the first is the model and the others are presets.
ARCHITECTURES = {
    "unit_hifigan": Architecture(UnitHifiganSizes),
    "unit_vocos": Architecture(UnitVocosSizes),
    # 2.7 M parameters, for small machines
    "unit_vocos_small": Architecture(UnitVocosSizes, {**_SMALL, "num_layers": 5}),
    "unit_source_filter": Architecture(UnitSourceFilterSizes),
    # 3.4 M parameters, for the demo and small machines
    "unit_source_filter_small": Architecture(UnitSourceFilterSizes, {**_SMALL, "num_layers": 6}),
}


def sizes_class(arch: str) -> type[UnitVocoderSizes]:
    """The class of an architecture's sizes. Raises ValueError if no unit vocoder has that name."""
    if arch not in ARCHITECTURES:
        raise ValueError(f"the unit vocoder {arch!r}: expected {', '.join(sorted(ARCHITECTURES))}.")
    return ARCHITECTURES[arch].sizes


def default_sizes(arch: str) -> Any:
    """The sizes of an architecture when no option is given; raises ValueError as `sizes_class` does."""
    return sizes_class(arch)(**ARCHITECTURES[arch].defaults)


def arch_of(sizes: UnitVocoderSizes) -> str:
    """The name of the model that has these sizes."""
    for name, architecture in ARCHITECTURES.items():
        if isinstance(sizes, architecture.sizes):
            return name
    raise ValueError(f"{type(sizes).__name__}: expected the sizes of a unit vocoder.")


def build_vocoder(sizes: UnitVocoderSizes, streams: Streams) -> UnitGenerator:
    """Builds a unit vocoder: the embeddings of the streams and a waveform generator. Raises ValueError if the
    sizes do not fit each other or the streams."""
    condition, dim = sizes.duration_condition, sizes.embedding_dim
    if condition not in ("speaker", "none"):
        raise ValueError(f"--duration-condition is {condition!r}, expected speaker or none.")
    generator = sizes.build_generator(streams, frame_channels(streams, dim))
    durations = None
    if sizes.duration_predictor:
        needs_speaker = condition == "speaker" and streams.has_speaker
        durations = DurationPredictor(
            dim,
            sizes.duration_hidden_dim,
            sizes.duration_kernel_size,
            sizes.duration_dropout,
            dim if needs_speaker else 0,
        )
    return UnitGenerator(generator, streams, dim, durations)


def with_duration_condition(sizes: dict[str, Any], weights: Iterable[str]) -> dict[str, Any]:
    """Infers `duration_condition` from the weight names. Older checkpoints do not store it."""
    has_speaker = any(name.endswith("duration_predictor.speaker.weight") for name in weights)
    return {**sizes, "duration_condition": "speaker" if has_speaker else "none"}
