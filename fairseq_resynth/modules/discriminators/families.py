"""The families of discriminators by the names that `--discriminators` takes."""

from collections.abc import Callable

from fairseq_resynth.modules.discriminators.base import DiscriminatorFamily, Discriminators
from fairseq_resynth.modules.discriminators.periods import period_discriminators
from fairseq_resynth.modules.discriminators.scales import ScaleDiscriminators
from fairseq_resynth.modules.discriminators.spectrograms import (
    band_discriminators,
    complex_discriminators,
    magnitude_discriminators,
)

# name: (attribute, with which the names of the weights begin; how it is built from a width)
FAMILIES: dict[str, tuple[str, Callable[[float], DiscriminatorFamily]]] = {
    "mpd": ("periods", period_discriminators),
    "msd": ("scales", ScaleDiscriminators),
    "mrd": ("magnitudes", magnitude_discriminators),
    "msstft": ("spectra", complex_discriminators),
    "mbstft": ("bands", band_discriminators),
}
HIFIGAN = "mpd,msd"  # the paper's: five period discriminators and three scale discriminators


def parse_names(text: str) -> list[str]:
    """The names in "mpd,mrd", in the order of `FAMILIES`, which is also the order of the weights.

    Raises:
        ValueError: if a name is unknown or occurs twice.
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
    """Builds the families named.

    Args:
        names: names of `FAMILIES` with commas between them.
        width: factor on the published channels; 1 gives the paper's discriminators 70.7 M parameters.

    Raises:
        ValueError: if a name is unknown or occurs twice, or the width is not positive.
    """
    if width <= 0:
        raise ValueError(f"the discriminators' width is {width}, expected a positive factor.")
    families = [FAMILIES[name] for name in parse_names(names)]
    return Discriminators({attribute: build(width) for attribute, build in families})
