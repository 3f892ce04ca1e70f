"""The streams of one utterance, as fitting and counting take them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Utterance:
    """The streams of one utterance.

    Attributes:
        name: for the reports.
        units: (U,) int64.
        f0_codes: (F,) int64, or None.
    """

    name: str
    units: np.ndarray
    f0_codes: np.ndarray | None = None
