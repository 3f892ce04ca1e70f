"""The families of discriminators by the names that `--discriminators` takes."""

from collections.abc import Callable
from functools import partial

from torch import nn

from fairseq_resynth.modules.constant_q_discriminators import constant_q_discriminators
from fairseq_resynth.modules.discriminators.spectrograms import (
    band_discriminators,
    complex_discriminators,
    magnitude_discriminators,
)
from fairseq_resynth.modules.discriminators.waveforms import (
    Discriminators,
    PeriodDiscriminators,
    ScaleDiscriminators,
    check_width,
)

# name: (attribute, and so the start of the weights' names, how it is built from a width)
FAMILIES: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "mpd": ("periods", PeriodDiscriminators),
    "msd": ("scales", ScaleDiscriminators),
    "mrd": ("magnitudes", magnitude_discriminators),
    "msstft": ("spectra", complex_discriminators),
    "mbstft": ("bands", band_discriminators),
    "cqt": ("constant_q", constant_q_discriminators),
}


def parse_names(text: str) -> list[str]:
    """Parses "mpd,mrd" into names in the order of `FAMILIES`, which is also that of the weights.

    Raises:
        ValueError: an unknown name, or one twice.
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


def build_discriminators(text: str, width: float = 1.0, sample_rate: int = 16000) -> Discriminators:
    """Builds the families named.

    Args:
        text: names with commas between them.
        width: factor on the published channels.
        sample_rate: Hz.

    Raises:
        ValueError: names or a width that cannot be.
    """
    check_width(width)
    families = {}
    for name in parse_names(text):
        attribute, build = FAMILIES[name]
        if name == "cqt":
            build = partial(build, sample_rate=sample_rate)
        families[attribute] = build(width)
    return Discriminators(families)
