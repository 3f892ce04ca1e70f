"""Summarizes rows into figures: per system, per speaker and per pair of speakers."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairseq_resynth.evaluation.metrics.metric import REFERENCE, Metric, Row
from fairseq_resynth.measures.statistics import bootstrap, mean_interval

POOLED_RESAMPLES = 200  # fewer than for means, since each equal error rate sorts all trials
Figures = dict[str, dict[str, float]]


def _figures(rows: Sequence[Row], metrics: Sequence[Metric]) -> Figures:
    figures: Figures = {}
    for column in (column for metric in metrics for column in metric.columns):
        if own := [row for row in rows if row.get(column.name) is not None]:
            weights = [row.get(column.weight, math.nan) for row in own] if column.weight else None
            figures[column.name] = mean_interval([row[column.name] for row in own], weights)
    return figures


def _pooled_figures(rows: list[Row], metric: Metric) -> Figures:
    result: Figures = {}
    for name, value in metric.pooled(rows).items():

        def again(draws: np.ndarray, name: str = name) -> list[float]:
            return [metric.pooled([rows[i] for i in draw])[name] for draw in draws]

        bounds = bootstrap(again, len(rows) if math.isfinite(value) else 0, POOLED_RESAMPLES)
        result[name] = {"mean": value, **bounds, "count": len(rows), "undefined": 0}
    return result


def grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """The rows by their key, in the order of the keys."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return dict(sorted(groups.items()))


def summarize(rows: Sequence[Row], metrics: Sequence[Metric]) -> dict[str, Any]:
    """Mean, 95 % interval and counts of every column, by system.

    `rows` are taken after `Metric.finish`; those with an error are only counted as `failed`.
    Returns system -> `utterances`, `failed`, `all` (with the figures of `Metric.pooled`),
    `speakers` by target speaker, and `pairs` of source and target speaker.
    """
    summary: dict[str, Any] = {}
    for system, own in grouped(rows, lambda row: row["system"]).items():
        good = [row for row in own if not row["error"]]
        figures = _figures(good, metrics)
        for metric in metrics:
            figures |= _pooled_figures(good, metric)
        known = [row for row in good if row["speaker"]]
        speakers = grouped(known, lambda row: row["speaker"])
        converted = [row for row in good if row["speaker"] != row["source_speaker"]]
        pairs = grouped(converted, lambda row: f"{row['source_speaker'] or '?'} → {row['speaker']}")
        summary[system] = {
            "utterances": len(good),
            "failed": len(own) - len(good),
            "all": figures,
            "speakers": {who: _figures(part, metrics) for who, part in speakers.items()},
            "pairs": {names: _figures(part, metrics) for names, part in pairs.items()},
        }
    return summary


def comparison_note(rows: Sequence[Row]) -> str:
    """A warning if systems were measured on different utterances, else an empty string."""
    good = [row for row in rows if not row["error"] and row["system"] != REFERENCE]
    measured = {
        system: {row["reference_name"] for row in own}
        for system, own in grouped(good, lambda row: row["system"]).items()
    }
    common = set.intersection(*measured.values()) if measured else set()
    if all(names == common for names in measured.values()):
        return ""
    counts = ", ".join(f"{system} {len(names)}" for system, names in measured.items())
    return (
        f"The systems were measured on different utterances ({counts}; {len(common)} in common): their "
        "means cannot be compared."
    )


def notes_by_kind(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Names by "system: note", where notes that differ only in their per cent are one kind."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for kind in dict.fromkeys(re.sub(r"^[\d.]+ % ", "", note) for note in row["notes"]):
            found.setdefault(f"{row['system']}: {kind}", []).append(row["name"])
    return dict(sorted(found.items()))
