"""The metrics: those built in, in the order of the report, and those of other packages."""

import functools
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from fairseq_resynth.evaluation.metrics.intelligibility import Intelligibility
from fairseq_resynth.evaluation.metrics.metric import Metric
from fairseq_resynth.evaluation.metrics.quality import DistillMos, Dnsmos, Pesq, Stoi, Utmos
from fairseq_resynth.evaluation.metrics.signal import (
    F0,
    Level,
    MelCepstralDistortion,
    MelL1,
    MultiResolutionStft,
)
from fairseq_resynth.evaluation.metrics.speaker import Speaker
from fairseq_resynth.evaluation.metrics.units import Rate, Speed, Units

ENTRY_POINTS = "fairseq_resynth.metrics"

BUILT_IN = (
    F0,
    MelL1,
    MelCepstralDistortion,
    MultiResolutionStft,
    Intelligibility,
    Speaker,
    Dnsmos,
    DistillMos,
    Utmos,
    Pesq,
    Stoi,
    Units,
    Rate,
    Speed,
    Level,
)


def all_metrics() -> dict[str, Callable[[], Metric]]:
    """Returns the built-in metrics in the order of the report, then those of other packages."""
    found = {metric().name: metric for metric in BUILT_IN}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.name not in found:
            found[point.name] = _load(point)
    return found


def _load(point: importlib.metadata.EntryPoint) -> Callable[[], Metric]:
    """Returns a metric of another package; one that does not load is listed as missing, with the reason."""
    try:
        return point.load()
    except Exception as error:  # whatever importing a stranger's module raises
        return functools.partial(_Broken, point.name, f"{point.value}: {error}")


class _Broken(Metric):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name=name, predicts="nothing: it cannot be loaded")
        self._reason = reason

    def missing(self) -> str:
        """See `Metric`."""
        return f"cannot be loaded from {self._reason}"


def make_metrics(names: str, settings: Mapping[str, Any]) -> list[Metric]:
    """Makes the metrics of a list.

    Args:
        names: separated by commas, or `all`.
        settings: options for all of them; each takes those that its `settings` names.

    Raises:
        ValueError: a name that is no metric; the message lists them.
    """
    known = all_metrics()
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    wanted = list(known) if wanted == ["all"] else wanted
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        found = f"no metric is called {', '.join(unknown)}" if unknown else "no metric is named"
        raise ValueError(f"--metrics: {found}; there are {', '.join(known)}")
    made = [known[name]() for name in dict.fromkeys(wanted)]
    for metric in made:
        metric.settings = {
            key: settings.get(key, default) for key, default in metric.settings.items()
        }
    return made
