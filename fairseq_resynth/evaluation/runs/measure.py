"""Measures every utterance of every system, in parallel, and resumes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_resynth.data.storage.resume import Record, with_content
from fairseq_resynth.data.storage.workers import parallel_map
from fairseq_resynth.evaluation.metrics.metric import Comparison, Metric, Recording
from fairseq_resynth.evaluation.runs.pairing import Pair

REFERENCE = "reference"  # the system of the recordings themselves
Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One utterance of one system; for the system `reference` both files are the recording."""

    system: str
    pair: Pair
    transcript: str | None = None


# An utterance, and the keys of the values that are still to be measured, by name of the metric.
_Task = tuple[Measurement, dict[str, str]]


def measurement_keys(
    record: Record, measurement: Measurement, identities: Mapping[str, Any]
) -> dict[str, str]:
    """The key of each metric's values: both files, the words, and the metric's version and
    settings.

    `record` hashes the files; `identities` are those of `identity_of`, by name of the metric.
    Raises OSError if a file cannot be read.
    """
    pair = measurement.pair
    files = [record.content(path) for path in (pair.generated, pair.reference)]
    words = measurement.system == REFERENCE, measurement.transcript
    return {name: record.key(identity, files, words) for name, identity in identities.items()}


def identity_of(metric: Metric) -> list[Any]:
    """What a metric's values depend on in addition to the utterance, as a part of a key."""
    settings = {name: with_content(value) for name, value in metric.settings.items()}
    return [metric.name, metric.version(), settings]


def _applicable(metric: Metric, measurement: Measurement) -> bool:
    if "transcript" in metric.needs and measurement.transcript is None:
        return False
    return measurement.system != REFERENCE or metric.measures_reference


_metrics: dict[str, Metric] = {}


def _initialize(metrics: list[Metric]) -> None:
    import torch

    torch.set_num_threads(1)  # the workers share the cores
    _metrics.update((metric.name, metric) for metric in metrics)


def _measure_group(group: Sequence[_Task]) -> list[dict[str, Any]]:
    """Measures all systems of one reference, which is read and analyzed once."""
    recordings: dict[Path, Recording] = {}
    outcomes = []
    for measurement, keys in group:
        pair = measurement.pair
        generated, reference = (
            recordings.setdefault(path, Recording(path))
            for path in (pair.generated, pair.reference)
        )
        outcome: dict[str, Any] = {"values": {}, "problems": {}, "error": ""}
        outcomes.append(outcome)
        try:
            _ = generated.wav, reference.wav
        except (OSError, ValueError) as error:
            outcome["error"] = str(error)
            continue
        for name, key in keys.items():
            metric = _metrics[name]
            compared = measurement.system != REFERENCE or "reference" in metric.needs
            comparison = Comparison(
                pair.name, generated, reference if compared else None, measurement.transcript
            )
            try:
                outcome["values"][key] = metric.measure(comparison)
            # other packages raise all kinds of errors on odd audio; the other utterances still count
            except Exception as error:
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                outcome["problems"][name] = f"{kind}{error}"
    return outcomes


def measure(
    measurements: Sequence[Measurement], metrics: list[Metric], outdir: Path, workers: int = 1
) -> tuple[list[Row], int]:
    """Measures utterances with metrics of which none is `missing()`.

    The record in `outdir` has the values of earlier runs and takes the new ones. Returns one row
    per utterance in the same order, and how many values were reused. A row has `system`, `name`,
    `reference_name`, `speaker`, `source_speaker`, `generated`, `reference`, the metrics' values,
    `notes`, `problems` (metric -> reason) and `error` (why the whole utterance was not measured).
    """
    outcomes: dict[Measurement, dict[str, Any]] = {}
    # Looking up versions and hashing a bundle's weights takes longer than measuring a row.
    identities = {metric.name: identity_of(metric) for metric in metrics}
    keys: dict[Measurement, dict[str, str]] = {}
    groups: dict[Path, list[_Task]] = defaultdict(list)  # by reference
    reused = 0
    with Record(outdir) as record:
        for one in measurements:
            wanted = {m.name: identities[m.name] for m in metrics if _applicable(m, one)}
            try:
                keys[one] = measurement_keys(record, one, wanted)
            except OSError as error:
                outcomes[one] = {"error": str(error)}
                continue
            todo = {name: key for name, key in keys[one].items() if record.values(key) is None}
            reused += len(wanted) - len(todo)
            if todo or not wanted:
                groups[one.pair.reference].append((one, todo))
        total, setup = sum(map(len, groups.values())), partial(_initialize, metrics)
        with tqdm(total=total, unit="utterance", desc="measure", disable=None) as bar:
            for group, found in parallel_map(
                _measure_group, list(groups.values()), workers, setup=setup
            ):
                for (one, _), outcome in zip(group, found, strict=True):
                    outcomes[one] = outcome
                    for key, values in outcome["values"].items():
                        record.keep(key, values)
                bar.update(len(group))
        rows = [_row(one, outcomes.get(one, {}), keys.get(one, {}), record) for one in measurements]
    return rows, reused


def _row(
    measurement: Measurement, outcome: dict[str, Any], keys: Mapping[str, str], record: Record
) -> Row:
    row: Row = {"system": measurement.system}
    for name in ("name", "reference_name", "speaker", "source_speaker", "generated", "reference"):
        row[name] = str(getattr(measurement.pair, name))
    row |= {"notes": [], "problems": outcome.get("problems", {}), "error": outcome.get("error", "")}
    row |= dict(measurement.pair.given)
    for key in keys.values():
        values = dict(record.values(key) or {})
        row["notes"] += values.pop("notes", [])
        row.update(values)
    return row
