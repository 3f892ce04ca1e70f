"""The figures of an evaluation, per system, speaker and pair of speakers, and its files."""

import csv
import datetime
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fairseq_resynth
from fairseq_resynth.data.storage.files import misfit, read_json, write_json, write_text
from fairseq_resynth.evaluation.metrics.metric import REFERENCE, Column, Metric, Row
from fairseq_resynth.measures.statistics import bootstrap, mean_interval

FORMAT = 1
NAMES = ("system", "name", "reference_name", "speaker", "source_speaker", "generated", "reference")
TEXTS = ("transcript", "heard")
ERRORS = ("notes", "problems", "error")
FACTS = ("metrics", "missing", "unpaired", "settings")
DETAILS = ("f0_reference", "f0_generated", "speaker_scores")
POOLED_RESAMPLES = 200  # fewer than for means, since each equal error rate sorts all trials
_MADE_BY = "Make it with `resynth evaluate`."
# The shapes of the JSON files, see `misfit`.
_NUMBER, _BETTER = int | float | None, ("lower", "higher", "")
_COLUMN = dict.fromkeys(("name", "label", "better", "weight"), str)
_COLUMN |= {"digits": int, "scale": int | float}
_FIGURES = {str: {"mean": _NUMBER, "low": _NUMBER, "high": _NUMBER, "count": int, "undefined": int}}
_TRACK = ([_NUMBER], type(None))
_ROW = dict.fromkeys(
    ("system", "name", "reference_name", "speaker", "generated", "reference", "error"), str
)
_ROW |= {"notes": [str], "problems": {str: str}}
_ROW |= dict.fromkeys(("transcript", "heard"), (str | None,))
_SYSTEM = {"utterances": int, "failed": int, "all": _FIGURES}
_SYSTEM |= dict.fromkeys(("speakers", "pairs"), {str: _FIGURES})
_DETAIL = {"f0_reference": _TRACK, "f0_generated": _TRACK}
_DETAIL |= {"speaker_scores": ({str: int | float}, type(None))}
_SHAPES = {
    "evaluation": {
        "columns": [_COLUMN],
        "metrics": [{"name": str, "version": str, "predicts": str}],
        "missing": {str: str},
        "unpaired": {str: {"only_generated": [str], "only_reference": [str]}},
        "settings": {"without_transcript": ([str], type(None))},
    },
    "rows": [_ROW],
    "summary": {str: _SYSTEM},
    "details": {str: {str: _DETAIL}},
}
Figures = dict[str, dict[str, float]]


@dataclass
class Evaluation:
    """Everything that a report shows."""

    rows: list[Row]  # one per utterance and system, with columns and texts only; see `measure`
    summary: dict[str, Any]  # see `summarize`
    columns: list[Column]  # the columns of all metrics
    metrics: list[dict[str, str]]  # name, version and prediction of each metric
    # metric -> why it did not run and what to install
    missing: dict[str, str] = field(default_factory=dict)
    # system -> names without a partner, see `pair_files`
    unpaired: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    # system -> name -> F0 tracks and speaker scores
    details: dict[str, dict[str, Row]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # options of the run

    @property
    def systems(self) -> list[str]:
        """Labels in the order of the rows, the recordings first."""
        found = dict.fromkeys(row["system"] for row in self.rows)
        return sorted(found, key=lambda system: system != REFERENCE)

    @property
    def failed(self) -> dict[str, str]:
        """ "system: name" -> reason, of the utterances that some metric did not measure."""
        named = {f"{row['system']}: {row['name']}": failure(row) for row in self.rows}
        return {name: reason for name, reason in named.items() if reason}


def failure(row: Row) -> str:
    """Why an utterance was not measured, or not by all metrics; an empty string if it was."""
    problems = (f"{metric}: {reason}" for metric, reason in row["problems"].items())
    return row["error"] or "; ".join(problems)


def collect(rows: list[Row], metrics: Sequence[Metric], **rest: Any) -> Evaluation:
    """Finishes the metrics system by system, and summarizes the rows of `measure`. `rest` are further
    fields of `Evaluation`."""
    for system in dict.fromkeys(row["system"] for row in rows):
        for metric in metrics:
            metric.finish([row for row in rows if row["system"] == system])
    details: dict[str, dict[str, Row]] = {}
    for row in rows:
        kept = {key: row[key] for key in DETAILS if key in row}
        details.setdefault(row["system"], {})[row["name"]] = kept
    described = [
        {"name": metric.name, "version": metric.version(), "predicts": metric.predicts}
        for metric in metrics
    ]
    columns = [column for metric in metrics for column in metric.columns]
    names = [*NAMES, *(column.name for column in columns), *TEXTS, *ERRORS]
    plain = [{name: without_nan(row[name]) for name in names if name in row} for row in rows]
    summary = summarize(rows, metrics)
    return Evaluation(plain, summary, columns, described, details=details, **rest)


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


def without_nan(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON lacks, by None, and NumPy numbers by Python's."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Writes rows and summary as JSON and CSV, `details.json` and `evaluation.json`. Shares are written as
    shares, not in per cent; paths are relative to the folder, so that it can be moved together with the
    audio."""
    rows = [
        row | {key: os.path.relpath(row[key], folder) for key in ("generated", "reference")}
        for row in evaluation.rows
    ]
    write_json(folder / "rows.json", rows)
    present = {name for row in rows for name in row}
    names = [*NAMES, *(column.name for column in evaluation.columns), *TEXTS]
    head = [*(name for name in names if name in present), *ERRORS]
    write_text(folder / "rows.csv", _csv(head, rows))
    write_json(folder / "summary.json", without_nan(evaluation.summary))
    lines = [
        {"system": system, "group": group, "figure": name, **values}
        for system, entry in evaluation.summary.items()
        for group, found in {"all": entry["all"], **entry["speakers"], **entry["pairs"]}.items()
        for name, values in found.items()
    ]
    head = ["system", "group", "figure", "mean", "low", "high", "count", "undefined"]
    write_text(folder / "summary.csv", _csv(head, lines))
    details = without_nan(evaluation.details)
    text = json.dumps(details, ensure_ascii=False, separators=(",", ":"))
    write_text(folder / "details.json", text)
    facts = {
        "format": FORMAT,
        "version": fairseq_resynth.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "columns": [asdict(column) for column in evaluation.columns],
        **{name: getattr(evaluation, name) for name in FACTS},
    }
    write_json(folder / "evaluation.json", without_nan(facts))


def _csv(head: Sequence[str], rows: Iterable[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, head, "", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain_text(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _plain_text(value: Any) -> Any:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {reason}" for name, reason in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if without_nan(value) is None else value


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads what `write_evaluation` wrote. Raises FileNotFoundError if there is none, ValueError if it is
    damaged or of another format."""
    folder = Path(folder)
    facts, rows, summary, details = (
        read_json(folder / f"{name}.json", _MADE_BY)
        for name in ("evaluation", "rows", "summary", "details")
    )
    if isinstance(facts, dict) and facts.get("format") != FORMAT:
        raise ValueError(
            f"{folder}/evaluation.json has format {ascii(facts.get('format'))[:40]}, expected {FORMAT}. "
            f"{_MADE_BY}"
        )
    found = {"evaluation": facts, "rows": rows, "summary": summary, "details": details}
    if wrong := misfit(found, _SHAPES) or _contradiction(facts["columns"], rows, summary):
        raise ValueError(f"{folder} is a damaged evaluation: found {wrong}. {_MADE_BY}")
    columns = [Column(**{name: column[name] for name in _COLUMN}) for column in facts["columns"]]
    for row in rows:
        for key in ("generated", "reference"):
            row[key] = os.path.normpath(folder / row[key])
    return Evaluation(
        rows, summary, columns, details=details, **{name: facts[name] for name in FACTS}
    )


def _contradiction(columns: list[Row], rows: list[Row], summary: Row) -> str:
    """What in files of the right shapes does not belong together, as text; empty if all does."""
    if wrong := misfit(rows, [{column["name"]: (_NUMBER,) for column in columns}], "rows"):
        return wrong
    unknown = sorted({row["system"] for row in rows} - set(summary))
    odd = [c["name"] for c in columns if c["better"] not in _BETTER or not 0 <= c["digits"] < 20]
    wrongs = [f"the unknown system {ascii(name)}" for name in unknown]
    return ", ".join(wrongs + [f"the column {ascii(name)}" for name in odd])


def join(folders: Sequence[str | Path]) -> Evaluation:
    """Joins several evaluations into one; the recordings are taken from the first that has them. Raises
    ValueError if two evaluations in folders of the same name have systems of the same label, and
    FileNotFoundError for a folder without an evaluation."""
    joined = Evaluation([], {}, [], [])
    joined.settings = {"joined": [str(folder) for folder in folders]}
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ValueError("an evaluation is given twice; give each folder once")
    for folder in map(Path, folders):
        part, taken, names = read_evaluation(folder), set(joined.summary), {}
        for label in part.systems:
            if label == REFERENCE and label in taken:
                continue
            names[label] = name = f"{folder.name}: {label}" if label in taken else label
            if name in taken:
                raise ValueError(
                    f"{folder}: another evaluation has a system {name!r}; rename the folder"
                )
            joined.summary[name] = part.summary[label]
            joined.details[name] = part.details.get(label, {})
            own = [row for row in part.rows if row["system"] == label]
            joined.rows += [{**row, "system": name} for row in own]
        joined.unpaired |= {names.get(label, label): left for label, left in part.unpaired.items()}
        known = {column.name for column in joined.columns}
        joined.columns += [column for column in part.columns if column.name not in known]
        joined.metrics += [entry for entry in part.metrics if entry not in joined.metrics]
        joined.missing |= part.missing
    return joined
