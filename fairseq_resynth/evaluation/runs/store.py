"""What an evaluation leaves on disk, and reading it again to join several."""

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fairseq_resynth
from fairseq_resynth.data.storage.files import read_json, write_json, write_text
from fairseq_resynth.evaluation.metrics.metric import Column, Metric
from fairseq_resynth.evaluation.runs.measure import REFERENCE, Row
from fairseq_resynth.evaluation.runs.summary import (
    scalar_rows,
    summarize,
    without_nan,
    write_tables,
)

FORMAT = 1
DETAILS = ("f0_reference", "f0_generated", "speaker_scores")
_MADE_BY = "Make it with `resynth evaluate`."


@dataclass
class Evaluation:
    """Everything a report shows.

    Attributes:
        rows: see `runner.measure`, with columns and texts only.
        summary: see `summary.summarize`.
        columns: of all metrics.
        metrics: name, version and what each predicts.
        missing: metric -> why it did not run and what to install.
        unpaired: system -> `only_generated` and `only_reference` names.
        details: system -> name -> F0 tracks and speaker scores.
        settings: options of the run.
    """

    rows: list[Row]
    summary: dict[str, Any]
    columns: list[Column]
    metrics: list[dict[str, str]]
    missing: dict[str, str] = field(default_factory=dict)
    unpaired: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    details: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def systems(self) -> list[str]:
        """Labels in the order of the rows, the recordings first."""
        found = dict.fromkeys(row["system"] for row in self.rows)
        return sorted(found, key=lambda system: system != REFERENCE)

    @property
    def failed(self) -> list[Row]:
        """Rows that were not measured, wholly or with one of the metrics."""
        return [row for row in self.rows if row["error"] or row["problems"]]


def collect(rows: list[Row], metrics: Sequence[Metric], **rest: Any) -> Evaluation:
    """Finishes the metrics, system by system, and summarizes.

    Args:
        rows: of `runner.measure`.
        metrics: that gave them.
        rest: further fields of `Evaluation`.
    """
    for system in dict.fromkeys(row["system"] for row in rows):
        for metric in metrics:
            metric.finish([row for row in rows if row["system"] == system])
    details: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        kept = {key: row[key] for key in DETAILS if key in row}
        details.setdefault(row["system"], {})[row["name"]] = kept
    described = [
        {"name": metric.name, "version": metric.version(), "predicts": metric.predicts}
        for metric in metrics
    ]
    columns = [column for metric in metrics for column in metric.columns]
    summary = summarize(rows, metrics)
    return Evaluation(
        scalar_rows(rows, metrics), summary, columns, described, details=details, **rest
    )


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Writes rows, summary, details and `evaluation.json` into a folder."""
    write_tables(folder, evaluation.rows, evaluation.columns, evaluation.summary)
    write_text(folder / "details.json", _compact(evaluation.details))
    # Audio is found from the folder, wherever both are moved together.
    facts = {
        "format": FORMAT,
        "version": fairseq_resynth.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "columns": [asdict(column) for column in evaluation.columns],
        "metrics": evaluation.metrics,
        "missing": evaluation.missing,
        "unpaired": evaluation.unpaired,
        "settings": evaluation.settings,
    }
    write_json(folder / "evaluation.json", without_nan(facts))


def _compact(value: Any) -> str:
    return json.dumps(without_nan(value), ensure_ascii=False, separators=(",", ":"))


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads what `write_evaluation` wrote.

    Raises:
        FileNotFoundError, ValueError: no evaluation there, or of another format.
    """
    folder = Path(folder)
    try:
        return _read(folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder} is a damaged evaluation ({type(error).__name__}: {error}). {_MADE_BY}"
        ) from error


def _read(folder: Path) -> Evaluation:
    facts = read_json(folder / "evaluation.json", _MADE_BY)
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"{folder}/evaluation.json has format {facts.get('format')}, expected {FORMAT}. {_MADE_BY}"
        )
    rows = read_json(folder / "rows.json", _MADE_BY)
    for row in rows:
        for key in ("generated", "reference"):
            row[key] = os.path.normpath(folder / row[key])
        _require(row, "system", "name", "reference_name", "speaker", "error", "problems")
    summary = read_json(folder / "summary.json", _MADE_BY)
    for row in rows:
        _require(summary[row["system"]], "all", "speakers", "pairs")
    return Evaluation(
        rows,
        summary,
        [Column(**column) for column in facts["columns"]],
        facts["metrics"],
        facts["missing"],
        facts["unpaired"],
        read_json(folder / "details.json", _MADE_BY),
        facts["settings"],
    )


def _require(found: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if key not in found:
            raise KeyError(key)


def _renamed(label: str, folder: Path, taken: set[str]) -> str:
    if label == REFERENCE or label not in taken:
        return label
    return f"{folder.name}: {label}"


def join(folders: Sequence[str | Path]) -> Evaluation:
    """Joins several evaluations into one; the recordings are taken from the first that has them.

    Raises:
        ValueError: two evaluations in folders of the same name have systems of the same label.
        FileNotFoundError: see `read_evaluation`.
    """
    joined = Evaluation([], {}, [], [])
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ValueError("an evaluation is given twice; give each folder once")
    for folder in map(Path, folders):
        part, taken = read_evaluation(folder), set(joined.summary)
        names = {label: _renamed(label, folder, taken) for label in part.systems}
        for label, name in names.items():
            if name in taken:
                if name == REFERENCE:
                    continue
                raise ValueError(f"{folder}: there is a system {name!r} already; rename the folder")
            joined.summary[name] = part.summary[label]
            joined.details[name] = part.details.get(label, {})
            own = [row for row in part.rows if row["system"] == label]
            joined.rows += [{**row, "system": name} for row in own]
        joined.unpaired |= {names.get(label, label): left for label, left in part.unpaired.items()}
        known = {column.name for column in joined.columns}
        joined.columns += [column for column in part.columns if column.name not in known]
        joined.metrics += [entry for entry in part.metrics if entry not in joined.metrics]
        joined.missing |= part.missing
    joined.settings = {"joined": [str(folder) for folder in folders]}
    return joined
