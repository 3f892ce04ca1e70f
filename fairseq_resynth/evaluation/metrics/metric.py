"""The base class of metrics, and what a metric is given.

A metric is a subclass of `Metric`. It is listed in `metrics.catalogue` or, in another package, is an entry
point of the group `fairseq_resynth.metrics` under the metric's name.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.evaluation.metrics.packages import missing_packages, package_version

REFERENCE = "reference"  # the system of the recordings themselves
Row = dict[str, Any]  # an utterance of a system and its values


@dataclass(frozen=True)
class Column:
    """One number that a metric gives for each utterance."""

    name: str  # key in rows and heading in the CSV files
    label: str  # heading in the report, with the unit
    better: str = "lower"  # "lower", "higher", or "" where neither is better
    weight: str = ""  # key of the count that weighs an utterance in means (frames, words)
    digits: int = 3  # decimals shown
    scale: float = 1.0  # for display: rows hold shares in [0, 1], the report shows per cent


@dataclass(frozen=True)
class Recording:
    """One audio file, read on first use and resampled to 16 kHz."""

    path: Path
    _derived: dict[str, Any] = field(default_factory=dict, init=False, compare=False)

    @functools.cached_property
    def _loaded(self) -> tuple[np.ndarray, int]:
        return load_any_audio(self.path)

    @property
    def file_rate(self) -> int:
        """Sample rate of the file in Hz."""
        return self._loaded[1]

    @functools.cached_property
    def wav(self) -> np.ndarray:
        """(T,) float32 at 16 kHz. Raises FileNotFoundError or ValueError if it cannot be read."""
        return resample(*self._loaded, SAMPLE_RATE)

    def derive(self, key: str, compute: Callable[[np.ndarray], Any]) -> Any:
        """What follows from this file alone (F0, recognized words): `compute(wav)`, computed once per key."""
        if key not in self._derived:
            self._derived[key] = compute(self.wav)
        return self._derived[key]


@dataclass(frozen=True)
class Comparison:
    """One generated recording, and the recording and the words that it is compared with, if known."""

    name: str  # relative, without suffix
    generated: Recording
    reference: Recording | None = None
    transcript: str | None = None

    @property
    def wavs(self) -> tuple[np.ndarray, np.ndarray]:
        """The reference and the generated samples, for metrics that need a reference."""
        return self.reference.wav, self.generated.wav


class Metric:
    """Base class: subclasses set the class attributes and write `measure`."""

    name: str = ""  # what `--metrics` calls it
    columns: tuple[Column, ...] = ()  # what `measure` returns, besides counts and lists
    predicts: str = ""  # what it was made or trained to predict, and the source of its formula
    needs: tuple[str, ...] = ()  # "reference" and "transcript", if it cannot do without
    packages: tuple[str, ...] = ()  # modules that it imports and this package does not require
    install: str = ""  # arguments of `pip install` that install them; "": the packages themselves
    settings: dict[str, Any] = {}  # options that change its values -> default; in the cache's key
    device = "cpu"  # of torch, for a metric with a network; not in the cache's key
    # whether it says something about the recordings themselves, which then are a system of their own (the
    # paper's "ground truth" rows)
    measures_reference: bool = False

    def missing(self) -> str:
        """Why the metric cannot run here and what to install, or an empty string."""
        return missing_packages(self.packages, self.install or " ".join(self.packages))

    def version(self) -> str:
        """Versions of the packages that compute the metric; a change of them discards cached values."""
        return ", ".join(f"{name} {package_version(name)}" for name in self.packages) or "1"

    def prepare(self) -> None:
        """Checks the settings and loads the models that they name, before anything is measured. Raises
        ValueError or FileNotFoundError if a setting is invalid, or a model cannot be loaded."""

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """Measures one utterance: the value of every column, NaN where it is undefined, as for silence.
        Also returns the counts that weigh them, and lists for `finish` or the report. Raises ValueError if
        the utterance cannot be measured; it is reported with this reason."""
        raise NotImplementedError

    def finish(self, rows: list[dict[str, Any]]) -> None:
        """Adds, in place, columns that depend on all utterances of a system."""

    def pooled(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Figures of a whole system that are not the mean of a column, such as an equal error rate."""
        return {}
