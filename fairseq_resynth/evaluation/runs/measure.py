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
    """One utterance of one system.

    Attributes:
        system: label.
        pair: the files; for the system `reference` both are the recording.
        transcript: the words, if known.
    """

    system: str
    pair: Pair
    transcript: str | None = None


@dataclass(frozen=True)
class _Task:
    """What is left to measure of an utterance: indices of metrics, and the keys of their values."""

    measurement: Measurement
    metrics: tuple[tuple[int, str], ...]


def measurement_keys(
    record: Record, measurement: Measurement, identities: Mapping[str, Any]
) -> dict[str, str]:
    """The key of each metric's values: both files, the words, and the metric's version and settings.

    Args:
        record: the record, which hashes the files.
        measurement: the utterance.
        identities: name of the metric -> its identity, see `identity_of`.

    Raises:
        OSError: A file does not exist or cannot be read.
    """
    pair = measurement.pair
    files = [record.content(path) for path in (pair.generated, pair.reference)]
    words = measurement.system == REFERENCE, measurement.transcript
    return {name: record.key(identity, files, words) for name, identity in identities.items()}


def identity_of(metric: Metric) -> list[Any]:
    """What a metric's values depend on in addition to the utterance, as a part of a key."""
    settings = {name: with_content(value) for name, value in metric.settings.items()}
    return [metric.name, metric.version(), settings]


def applicable(metric: Metric, measurement: Measurement) -> bool:
    """Whether a metric has values for an utterance."""
    if "transcript" in metric.needs and measurement.transcript is None:
        return False
    return measurement.system != REFERENCE or metric.measures_reference


_metrics: list[Metric] = []


def _initialize(metrics: list[Metric]) -> None:
    import torch

    torch.set_num_threads(1)  # the workers share the cores
    _metrics[:] = metrics


def _measure_group(group: Sequence[_Task]) -> list[tuple[Measurement, dict[str, Any]]]:
    """Measures all systems of one reference, which is read and analyzed once."""
    recordings: dict[Path, Recording] = {}

    def recording(path: Path) -> Recording:
        return recordings.setdefault(path, Recording(path))

    results = []
    for task in group:
        pair = task.measurement.pair
        files = recording(pair.generated), recording(pair.reference)
        outcome: dict[str, Any] = {"values": {}, "problems": {}, "error": ""}
        results.append((task.measurement, outcome))
        try:
            _ = files[0].wav, files[1].wav
        except (OSError, ValueError) as error:
            outcome["error"] = str(error)
            continue
        for index, key in task.metrics:
            _measure_one(_metrics[index], key, task.measurement, files, outcome)
    return results


def _measure_one(
    metric: Metric,
    key: str,
    measurement: Measurement,
    files: tuple[Recording, Recording],
    outcome: dict[str, Any],
) -> None:
    pair, words = measurement.pair, measurement.transcript
    with_reference = measurement.system != REFERENCE or "reference" in metric.needs
    reference = files[1] if with_reference else None
    try:
        values = metric.measure(Comparison(pair.name, files[0], reference, words))
        outcome["values"][key] = values
    # Other people's packages raise what they like on odd audio; the thousand others still count.
    except Exception as error:
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        outcome["problems"][metric.name] = f"{name}{error}"


def _groups(tasks: Sequence[_Task]) -> list[list[_Task]]:
    by_reference: dict[Path, list[_Task]] = defaultdict(list)
    for task in tasks:
        by_reference[task.measurement.pair.reference].append(task)
    return list(by_reference.values())


def measure(
    measurements: Sequence[Measurement], metrics: list[Metric], outdir: Path, workers: int = 1
) -> tuple[list[Row], int]:
    """Measures utterances with metrics that are installed.

    Args:
        measurements: what to measure.
        metrics: metrics of which none is `missing()`.
        outdir: folder whose record has the values of earlier runs and takes the new ones.
        workers: processes.

    Returns:
        One row per utterance in the same order, and how many values were reused. A row has `system`,
        `name`, `reference_name`, `speaker`, `source_speaker`, `generated`, `reference`, the
        metrics' values, `notes`, `problems` (metric -> reason) and `error` (why the whole utterance
        was not measured).
    """
    outcomes = {one: {"values": {}, "problems": {}, "error": ""} for one in measurements}
    # Looking up versions and hashing a bundle's weights takes longer than measuring a row.
    identities = {metric.name: identity_of(metric) for metric in metrics}
    keys: dict[Measurement, dict[str, str]] = {}
    tasks, reused = [], 0
    with Record(outdir) as record:
        for one in measurements:
            wanted = {m.name: identities[m.name] for m in metrics if applicable(m, one)}
            try:
                keys[one] = measurement_keys(record, one, wanted)
            except OSError as error:
                outcomes[one]["error"] = str(error)
                continue
            missing = [(i, keys[one][m.name]) for i, m in enumerate(metrics) if m.name in wanted]
            missing = [(index, key) for index, key in missing if record.values(key) is None]
            reused += len(wanted) - len(missing)
            if missing or not wanted:
                tasks.append(_Task(one, tuple(missing)))
        groups, initialize = _groups(tasks), partial(_initialize, metrics)
        with tqdm(total=len(tasks), unit="utterance", desc="measure", disable=None) as bar:
            for group, found in parallel_map(_measure_group, groups, workers, setup=initialize):
                for one, outcome in found:
                    outcomes[one] = outcome
                    for key, values in outcome["values"].items():
                        record.keep(key, values)
                bar.update(len(group))
        rows = [_row(one, outcomes[one], keys.get(one, {}), record) for one in measurements]
    return rows, reused


def _row(
    measurement: Measurement, outcome: dict[str, Any], keys: Mapping[str, str], record: Record
) -> Row:
    pair = measurement.pair
    row: Row = {
        "system": measurement.system,
        "name": pair.name,
        "reference_name": pair.reference_name,
        "speaker": pair.speaker,
        "source_speaker": pair.source_speaker,
        "generated": str(pair.generated),
        "reference": str(pair.reference),
        "notes": [],
        "problems": outcome["problems"],
        "error": outcome["error"],
        **dict(pair.given),
    }
    for key in keys.values():
        values = dict(record.values(key) or {})
        row["notes"] += values.pop("notes", [])
        row.update(values)
    return row
