"""The best and the worst utterances of a report, with players."""

import html
from collections.abc import Sequence
from pathlib import Path

from fairseq_resynth.evaluation.metrics.metric import REFERENCE, Column, Row
from fairseq_resynth.evaluation.report.page import player
from fairseq_resynth.evaluation.report.plots import tracking_plot
from fairseq_resynth.evaluation.report.tables import number
from fairseq_resynth.evaluation.runs.store import Evaluation

RANKED = ("ffe", "mel_l1", "mcd_dtw", "wer", "dwer", "stoi", "dnsmos_ovrl")


def ranking_column(evaluation: Evaluation, wanted: str = "") -> Column | None:
    """The column that ranks the utterances: `wanted`, or the first measured one of `RANKED`.

    Raises ValueError if there is no such column, or neither of its ends is better.
    """
    known = {column.name: column for column in evaluation.columns if column.better}
    if wanted and wanted not in known:
        raise ValueError(f"--rank-by {wanted!r}: expected one of {', '.join(known)}")
    measured = {name for row in evaluation.rows for name in row if row[name] is not None}
    names = [wanted] if wanted else RANKED
    return next((known[name] for name in names if name in known and name in measured), None)


def best_and_worst(
    evaluation: Evaluation, column: Column, count: int
) -> tuple[list[Row], list[Row]]:
    """Up to `count` best rows, best first, and as many worst ones, worst first; none is in both.

    They are of the first system that has the column.
    """
    for system in evaluation.systems:
        rows = [
            row
            for row in evaluation.rows
            if row["system"] == system and row.get(column.name) is not None
        ]
        if rows and system != REFERENCE:
            sign = 1 if column.better == "lower" else -1
            rows.sort(key=lambda row: (sign * row[column.name], row["name"]))
            best = rows[:count]
            return best, rows[len(best) :][-count:][::-1]
    return [], []


def examples_section(
    page: Path, evaluation: Evaluation, count: int, rank_by: str, audio: str
) -> str:
    """Players of the best and worst `count` utterances, the reference next to every system.

    `page` is the file that the section is put into; `audio` is "embed", "link" or "none".
    """
    column = ranking_column(evaluation, rank_by)
    if audio == "none" or not count or column is None:
        return ""
    best, worst = best_and_worst(evaluation, column, count)
    parts = ["<h2>Listen</h2>"]
    for title, rows in (("Best", best), ("Worst", worst)):
        if rows:
            blocks = "".join(_example(page, evaluation, row, column, audio) for row in rows)
            label = html.escape(f"{title} {len(rows)} of {rows[0]['system']} by {column.label}")
            parts.append(f"<h3>{label}</h3>{blocks}")
    return "".join(parts)


def _example(page: Path, evaluation: Evaluation, row: Row, column: Column, audio: str) -> str:
    tracks = {REFERENCE: _track(evaluation, row, "f0_reference")}
    figures = [_figure(page, REFERENCE, row["reference"], tracks[REFERENCE], audio)]
    for other in _same_utterance(evaluation, row):
        system = other["system"]
        tracks[system] = _track(evaluation, other, "f0_generated")
        figures.append(_figure(page, system, other["generated"], tracks[system], audio))
    words = "".join(
        f"<p>{label}: {html.escape(row[key])}</p>"
        for label, key in (("transcript", "transcript"), ("recognized", "heard"))
        if row.get(key)
    )
    plot = tracking_plot(tracks, f"F0 of {row['name']}") if any(map(len, tracks.values())) else ""
    value = number(row[column.name], column)
    return (
        f'<section class="example"><h4>{html.escape(row["name"])} '
        f'<span class="note">{html.escape(column.label)} {value}</span></h4>{words}'
        f'<div class="players">{"".join(figures)}</div>{plot}</section>'
    )


def _same_utterance(evaluation: Evaluation, row: Row) -> list[Row]:
    """The row of each system by this name, or by the reference's: baselines do not convert."""
    found = []
    for system in evaluation.systems:
        if system != REFERENCE:
            own = [r for r in evaluation.rows if r["system"] == system and not r["error"]]
            names = row["name"], row["reference_name"]
            found += [other for name in names for other in own if other["name"] == name][:1]
    return found


def _track(evaluation: Evaluation, row: Row, key: str) -> Sequence[float]:
    return evaluation.details.get(row["system"], {}).get(row["name"], {}).get(key, [])


def _figure(page: Path, system: str, path: str, track: Sequence[float], audio: str) -> str:
    try:
        content = player(Path(path), page, system, audio == "embed", track)
    except (FileNotFoundError, ValueError) as error:
        content = html.escape(str(error))
    return f"<figure><figcaption>{html.escape(system)}</figcaption>{content}</figure>"
