"""The unit vocoders by the name that `fairseq-train --arch` takes: their sizes, and how they are built.

A new waveform generator needs a file in `generators/` with the network and its sizes, and here a class of
all sizes, a function that builds the generator and an entry of `ARCHITECTURES`. The fairseq models are made
from those entries.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import gcd
from typing import Any

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
    """Sizes that do not depend on the waveform generator; the defaults are the paper's."""

    embedding_dim: int = option(
        128, "channels of each embedded stream (units, pitch, speaker, style)"
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


@dataclass
class UnitVocosSizes(UnitVocoderSizes, VocosSizes):
    """All sizes of `unit_vocos`; the defaults are Vocos's."""


@dataclass
class UnitSourceFilterSizes(UnitVocoderSizes, SourceFilterSizes):
    """All sizes of `unit_source_filter`."""


def _frame_hop(streams: Streams) -> int:
    return F0_HOP if streams.f0_channels else streams.unit_hop


def _hifigan(sizes: UnitHifiganSizes, streams: Streams, channels: int) -> nn.Module:
    return HifiganGenerator(channels, sizes, _frame_hop(streams))


def _vocos(sizes: UnitVocosSizes, streams: Streams, channels: int) -> nn.Module:
    return VocosGenerator(channels, sizes, _frame_hop(streams))


def _source_filter(sizes: UnitSourceFilterSizes, streams: Streams, channels: int) -> nn.Module:
    default_hop = gcd(_frame_hop(streams), 2 * F0_HOP)
    pitch = streams.f0_channels or (sizes.embedding_dim if streams.num_f0_codes else 0)
    voice = sizes.embedding_dim if streams.has_speaker else 0
    # A model without a pitch stream predicts its F0 from the units, the first channels of a frame.
    first = sizes.embedding_dim if pitch else 0
    pitch_channels = (first, sizes.embedding_dim + pitch + voice)
    return SourceFilterGenerator(channels, pitch_channels, sizes, default_hop)


@dataclass(frozen=True)
class Architecture:
    """One value of `--arch`; `build_generator` takes the sizes, the streams and the channels of a frame."""

    model: str  # the base model; presets of other sizes share it
    sizes: type[UnitVocoderSizes]
    build_generator: Callable[[Any, Streams, int], nn.Module]
    # sizes whose default differs from that of the class
    defaults: dict[str, int] = field(default_factory=dict)


_SMALL = {"embedding_dim": 64, "dim": 256, "intermediate_dim": 768}

ARCHITECTURES = {
    "unit_hifigan": Architecture("unit_hifigan", UnitHifiganSizes, _hifigan),
    "unit_vocos": Architecture("unit_vocos", UnitVocosSizes, _vocos),
    # 2.7 M parameters, for small machines
    "unit_vocos_small": Architecture(
        "unit_vocos", UnitVocosSizes, _vocos, {**_SMALL, "num_layers": 5}
    ),
    "unit_source_filter": Architecture("unit_source_filter", UnitSourceFilterSizes, _source_filter),
    # 3.4 M parameters, for the demo and small machines
    "unit_source_filter_small": Architecture(
        "unit_source_filter", UnitSourceFilterSizes, _source_filter, {**_SMALL, "num_layers": 6}
    ),
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
    """The architecture name of a sizes object."""
    for name, architecture in ARCHITECTURES.items():
        if name == architecture.model and isinstance(sizes, architecture.sizes):
            return name
    raise ValueError(f"{type(sizes).__name__}: expected the sizes of a unit vocoder.")


def build_vocoder(sizes: UnitVocoderSizes, streams: Streams) -> UnitGenerator:
    """Builds a unit vocoder: the embeddings of the streams and a waveform generator. Raises ValueError if the
    sizes do not fit each other or the streams."""
    condition, dim = sizes.duration_condition, sizes.embedding_dim
    if condition not in ("speaker", "none"):
        raise ValueError(f"--duration-condition is {condition!r}, expected speaker or none.")
    channels = frame_channels(streams, dim)
    generator = ARCHITECTURES[arch_of(sizes)].build_generator(sizes, streams, channels)
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
