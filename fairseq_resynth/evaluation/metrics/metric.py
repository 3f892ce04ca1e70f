"""What a metric is, and the table of those there are.

A metric is a class with the attributes of `Metric`, listed in `evaluation.metrics` or, in another
package, an entry point of the group `fairseq_resynth.metrics` under the metric's name.
"""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample


@dataclass(frozen=True)
class Column:
    """One number a metric gives for each utterance.

    Attributes:
        name: key in rows and the header in the CSV.
        label: heading in the report, with the unit.
        better: "lower", "higher", or "" where neither is.
        weight: key of the count that pools utterances (frames, words); "": they count the same.
        digits: decimals shown.
        scale: what it is multiplied by when shown; rows hold shares, the report per cents.
    """

    name: str
    label: str
    better: str = "lower"
    weight: str = ""
    digits: int = 3
    scale: float = 1.0


@dataclass(frozen=True)
class Recording:
    """One audio file, read on first use and resampled to 16 kHz.

    Attributes:
        path: the file.
        memo: what metrics derive from it alone (F0, what a recogniser hears), computed once for
            all the systems that are compared with it.
    """

    path: Path
    memo: dict[str, Any] = field(default_factory=dict, compare=False)

    @functools.cached_property
    def _loaded(self) -> tuple[np.ndarray, int]:
        return load_any_audio(self.path)

    @property
    def file_rate(self) -> int:
        """Hz in the file."""
        return self._loaded[1]

    @functools.cached_property
    def wav(self) -> np.ndarray:
        """(T,) float32 at 16 kHz.

        Raises:
            FileNotFoundError, ValueError: see `load_any_audio`.
        """
        return resample(*self._loaded, SAMPLE_RATE)

    def derive(self, key: str, compute: Callable[[np.ndarray], Any]) -> Any:
        """Returns `compute(wav)`, computed on the first call with this key."""
        if key not in self.memo:
            self.memo[key] = compute(self.wav)
        return self.memo[key]


@dataclass(frozen=True)
class Utterance:
    """What a metric sees.

    Attributes:
        name: relative name without suffix.
        generated: the recording that is judged.
        reference: what it is compared with, if there is any.
        transcript: the words, if known.
    """

    name: str
    generated: Recording
    reference: Recording | None = None
    transcript: str | None = None


@dataclass
class Metric:
    """Base class: subclasses set the attributes and write `measure`.

    Attributes:
        name: what `--metrics` calls it.
        columns: what `measure` returns, besides counts and lists.
        predicts: what it was made or trained to predict, and the source of its formula.
        needs: "reference" and "transcript", whichever it cannot do without.
        packages: importable modules it needs.
        install: pip's arguments that bring them.
        settings: options that change its values; part of the cache's key.
        judges_reference: says something about the recordings themselves, which are then a system
            of their own (the paper's "ground truth" rows).
    """

    name: str = ""
    columns: tuple[Column, ...] = ()
    predicts: str = ""
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    install: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    judges_reference: bool = False

    def missing(self) -> str:
        """Returns why the metric cannot run here and what to install, or an empty string."""
        absent = [name for name in self.packages if not importable(name)]
        if not absent:
            return ""
        return install_hint(absent, self.install)

    def version(self) -> str:
        """Returns the versions of the packages that compute it; change it and caches are redone."""
        return ", ".join(f"{name} {package_version(name)}" for name in self.packages) or "1"

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """Measures one utterance.

        Returns:
            Every column's value, NaN where it is undefined (silence), counts that weigh them, and
            lists for `finish` or the report.

        Raises:
            ValueError: the utterance cannot be measured; it is listed with this reason.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Checks the settings and loads what they name, before anything is measured.

        Raises:
            ValueError, FileNotFoundError: a model that cannot be loaded, a setting that is none.
        """

    def finish(self, rows: list[dict[str, Any]]) -> None:
        """Adds columns that need all utterances of a system to its rows, in place."""

    def pooled(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Returns figures of the whole set that are no mean of a column, an equal error rate say."""
        return {}


def install_hint(modules: Sequence[str], install: str) -> str:
    """Returns what is missing and the two ways to bring it."""
    names = ", ".join(modules)
    return f"{names} not installed: pip install {install}, or 'fairseq_resynth[eval]' for all"


def importable(name: str) -> bool:
    """Tells whether a module is installed, without importing it."""
    return importlib.util.find_spec(name) is not None


@functools.cache
def package_version(module: str) -> str:
    """Returns the version of the distribution that brings a module; looking it up takes long."""
    distributions = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
