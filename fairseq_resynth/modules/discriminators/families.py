"""The families of discriminators by the names that `--discriminators` takes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fairseq_resynth.modules.discriminators import spectrograms
from fairseq_resynth.modules.discriminators.base import DiscriminatorFamily, Discriminators
from fairseq_resynth.modules.discriminators.waveforms import (
    PERIODS,
    PeriodDiscriminator,
    ScaleDiscriminators,
)


def _family(build: Callable, sizes: Sequence[Any], width: float) -> DiscriminatorFamily:
    return DiscriminatorFamily([build(size, width) for size in sizes])


# name: (attribute, with which the names of the weights begin; how it is built from a width)
FAMILIES: dict[str, tuple[str, Callable[[float], DiscriminatorFamily]]] = {
    "mpd": ("periods", partial(_family, PeriodDiscriminator, PERIODS)),
    "msd": ("scales", ScaleDiscriminators),
    "mrd": (
        "magnitudes",
        partial(_family, spectrograms.MagnitudeDiscriminator, spectrograms.UNIVNET_RESOLUTIONS),
    ),
    "msstft": (
        "spectra",
        partial(_family, spectrograms.ComplexDiscriminator, spectrograms.ENCODEC_WINDOWS),
    ),
    "mbstft": ("bands", spectrograms.BandDiscriminators),
}
HIFIGAN = "mpd,msd"  # the paper's: five period discriminators and three scale discriminators


def parse_names(text: str) -> list[str]:
    """The names in "mpd,mrd", in the order of `FAMILIES`, which is also the order of the weights.

    Raises ValueError if a name is unknown or occurs twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FAMILIES:
            raise ValueError(
                f"--discriminators {text!r} has {name!r}: expected some of {', '.join(FAMILIES)}."
            )
        if names.count(name) > 1:
            raise ValueError(f"--discriminators {text!r} has {name!r} twice: expected it once.")
    return [name for name in FAMILIES if name in names]


def build_discriminators(names: str = HIFIGAN, width: float = 1.0) -> Discriminators:
    """Builds the families that `names` lists with commas; `width` is a factor on the published channels.

    The paper's discriminators have 70.7 M parameters at width 1. Raises ValueError if a name is unknown or
    occurs twice, or the width is not positive.
    """
    if width <= 0:
        raise ValueError(f"the discriminators' width is {width}, expected a positive factor.")
    families = [FAMILIES[name] for name in parse_names(names)]
    return Discriminators({attribute: build(width) for attribute, build in families})
