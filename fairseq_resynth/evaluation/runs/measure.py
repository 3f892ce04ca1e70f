"""Measures every utterance of every system, in parallel, and resumes."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_resynth.data.storage.resume import Record, with_content
from fairseq_resynth.data.storage.workers import parallel_map
from fairseq_resynth.evaluation.metrics.metric import (
    REFERENCE,
    Comparison,
    Metric,
    Recording,
    Row,
)
from fairseq_resynth.evaluation.runs.pairing import Pair

# An utterance, and the keys of the values that are still to be measured, by name of the metric.
_Task = tuple[Pair, dict[str, str]]
_metrics: dict[str, Metric] = {}  # of this process


def measurement_keys(record: Record, pair: Pair, identities: Mapping[str, Any]) -> dict[str, str]:
    """The key of each metric's values: both files, the words, and the metric's version and settings.
    `record` hashes the files; `identities` are those of `identity_of`, by name of the metric. Raises
    OSError if a file cannot be read."""
    files = [record.content(path) for path in (pair.generated, pair.reference)]
    words = pair.system == REFERENCE, pair.transcript
    return {name: record.key(identity, files, words) for name, identity in identities.items()}


def identity_of(metric: Metric) -> list[Any]:
    """What a metric's values depend on in addition to the utterance, as a part of a key."""
    settings = {name: with_content(value) for name, value in metric.settings.items()}
    return [metric.name, metric.version(), settings]


def _applicable(metric: Metric, pair: Pair) -> bool:
    if "transcript" in metric.needs and pair.transcript is None:
        return False
    return pair.system != REFERENCE or metric.measures_reference


def _initialize(metrics: list[Metric]) -> None:
    import torch

    torch.set_num_threads(1)  # the workers share the cores
    _metrics.update((metric.name, metric) for metric in metrics)


def _measure_group(group: Sequence[_Task]) -> list[dict[str, Any]]:
    """Measures all systems of one reference, which is read and analyzed once. Returns `values` by key,
    `problems` by metric, and `error`, why the utterance was not measured at all."""
    recording = functools.cache(Recording)
    outcomes = []
    for pair, keys in group:
        outcome: dict[str, Any] = {"values": {}, "problems": {}, "error": ""}
        outcomes.append(outcome)
        generated, reference = recording(pair.generated), recording(pair.reference)
        try:
            _ = generated.wav, reference.wav
        except (OSError, ValueError) as error:
            outcome["error"] = str(error)
            continue
        for name, key in keys.items():
            metric = _metrics[name]
            compared = pair.system != REFERENCE or "reference" in metric.needs
            known = reference if compared else None, pair.transcript
            try:
                outcome["values"][key] = metric.measure(Comparison(pair.name, generated, *known))
            # other packages raise all kinds of errors on odd audio; the other utterances still count
            except Exception as error:
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                outcome["problems"][name] = f"{kind}{error}"
    return outcomes


def measure(
    pairs: Sequence[Pair], metrics: list[Metric], outdir: Path, workers: int = 1
) -> tuple[list[Row], int]:
    """Measures utterances with metrics of which none is `missing()`.

    The record in `outdir` has the values of earlier runs and takes the new ones. Returns one row
    per pair in the same order, and how many values were reused. A row has `system`, `name`,
    `reference_name`, `speaker`, `source_speaker`, `generated`, `reference`, the metrics' values,
    `notes`, `problems` (metric -> reason) and `error` (why the whole utterance was not measured).
    """
    rows = {pair: _row(pair) for pair in pairs}
    # Looking up versions and hashing a bundle's weights takes longer than measuring a row.
    identities = {metric.name: identity_of(metric) for metric in metrics}
    keys: dict[Pair, dict[str, str]] = {}
    groups: dict[Path, list[_Task]] = defaultdict(list)  # by reference
    reused = 0
    with Record(outdir) as record:
        for pair in pairs:
            wanted = {m.name: identities[m.name] for m in metrics if _applicable(m, pair)}
            try:
                keys[pair] = measurement_keys(record, pair, wanted)
            except OSError as error:
                rows[pair]["error"] = str(error)
                continue
            todo = {name: key for name, key in keys[pair].items() if record.values(key) is None}
            reused += len(wanted) - len(todo)
            if todo or not wanted:
                groups[pair.reference].append((pair, todo))
        tasks, setup = list(groups.values()), functools.partial(_initialize, metrics)
        total = sum(map(len, tasks))
        with tqdm(total=total, unit="utterance", desc="measure", disable=None) as bar:
            for group, outcomes in parallel_map(_measure_group, tasks, workers, setup=setup):
                for (pair, _), outcome in zip(group, outcomes, strict=True):
                    for key, values in outcome.pop("values").items():
                        record.keep(key, values)
                    rows[pair].update(outcome)
                bar.update(len(group))
        for pair, own in keys.items():
            for key in own.values():
                values = dict(record.values(key) or {})
                rows[pair]["notes"] += values.pop("notes", [])
                rows[pair].update(values)
    return list(rows.values()), reused


def _row(pair: Pair) -> Row:
    names = ("system", "name", "reference_name", "speaker", "source_speaker")
    row: Row = {name: getattr(pair, name) for name in names}
    row |= {"generated": str(pair.generated), "reference": str(pair.reference)}
    return {**row, "notes": [], "problems": {}, "error": "", **dict(pair.given)}
