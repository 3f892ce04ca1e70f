"""The report: one HTML page with the figures, the plots and the players."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_resynth.data.storage.files import write_text
from fairseq_resynth.evaluation.metrics.metric import Column
from fairseq_resynth.evaluation.report import plots, tables
from fairseq_resynth.evaluation.report.examples import examples_section
from fairseq_resynth.evaluation.report.page import document
from fairseq_resynth.evaluation.report.tables import figure_cell, group_table, heading, paper_table
from fairseq_resynth.evaluation.runs.measure import REFERENCE, Row
from fairseq_resynth.evaluation.runs.store import Evaluation
from fairseq_resynth.evaluation.runs.summary import comparison_note, notes_by_kind

POOLED = (
    Column("eer", "EER %", "lower", "", 1, 100),
    Column("codebook_use", "codebook used %", "", "", 1, 100),
    Column("codebook_perplexity", "codebook perplexity", "", "", 1),
)
# the rate is drawn against the first measured column of each group
QUALITY_AXES = (
    ("utmos", "distillmos", "dnsmos_ovrl", "pesq_wb"),
    ("wer", "dwer", "stoi"),
    ("ffe",),
)


@dataclass(frozen=True)
class ReportOptions:
    """Options of a page.

    Attributes:
        title: title of the page.
        examples: number of best and number of worst utterances that have players.
        rank_by: column that determines best and worst; "": FFE, or mel L1, MCD-DTW, WER without it.
        audio: "embed" puts audio into the page, "link" links the files, "none" leaves players out.
    """

    title: str = "Evaluation"
    examples: int = 10
    rank_by: str = ""
    audio: str = "embed"


def write_report(path: str | Path, evaluation: Evaluation, options: ReportOptions) -> None:
    """Writes the page atomically.

    Raises:
        ValueError: `rank_by` is not a column, or `audio` is not one of the three.
    """
    if options.audio not in ("embed", "link", "none"):
        raise ValueError(f"audio: found {options.audio!r}, expected embed, link or none")
    path = Path(path)
    sections = [
        _head(evaluation, options.title),
        _summary_section(evaluation),
        _plot_section(evaluation),
        examples_section(path, evaluation, options.examples, options.rank_by, options.audio),
        _rows_section(evaluation),
        _groups_section(evaluation),
        _metrics_section(evaluation),
    ]
    body = f"<main>{''.join(sections)}</main>{_rows_data(evaluation)}"
    write_text(path, document(options.title, body, ["report.css"], ["report.js"]))


def _list(names: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(name)}</li>" for name in names) + "</ul>"


def _details(title: str, body: str, is_open: bool = False) -> str:
    return f"<details{' open' * is_open}><summary>{html.escape(title)}</summary>{body}</details>"


def _head(evaluation: Evaluation, title: str) -> str:
    names = {row["name"] for row in evaluation.rows if row["system"] != REFERENCE}
    systems = [system for system in evaluation.systems if system != REFERENCE]
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{len(names)} utterances of "
        f"{html.escape(', '.join(systems))}. Intervals are 95 %, by bootstrap over utterances.</p>"
    ]
    note = comparison_note(evaluation.rows)
    if note:
        parts.append(f"<p><strong>{html.escape(note)}</strong></p>")
    if evaluation.failed:
        lines = [f"{row['system']}: {row['name']}: {_reason(row)}" for row in evaluation.failed]
        title = f"{len(lines)} utterances not measured, wholly or in part"
        parts.append(_details(title, _list(lines), is_open=True))
    if evaluation.missing:
        lines = [f"{name}: {reason}" for name, reason in evaluation.missing.items()]
        parts.append(_details(f"{len(lines)} metrics not run", _list(lines), is_open=True))
    without = evaluation.settings.get("without_transcript")
    if without:
        parts.append(_details(f"{len(without)} references without a transcript", _list(without)))
    for kind, names in notes_by_kind(evaluation.rows).items():
        parts.append(_details(f"{kind} ({len(names)})", _list(names)))
    for system, left in evaluation.unpaired.items():
        for side, names in (("generated", "only_generated"), ("reference", "only_reference")):
            if left[names]:
                title = f"{system}: {len(left[names])} {side} files without a partner"
                parts.append(_details(title, _list(left[names])))
    return "".join(parts)


def _reason(row: Row) -> str:
    return row["error"] or "; ".join(f"{name}: {why}" for name, why in row["problems"].items())


def _summary_section(evaluation: Evaluation) -> str:
    found = {name for entry in evaluation.summary.values() for name in entry["all"]}
    columns = [column for column in (*evaluation.columns, *POOLED) if column.name in found]
    head = "".join(heading(column) for column in columns)
    body = ""
    for system in evaluation.systems:
        entry = evaluation.summary[system]
        cells = "".join(figure_cell(entry["all"].get(column.name), column) for column in columns)
        body += f'<tr><th scope="row">{html.escape(system)}</th>{cells}</tr>'
    table = f'<thead><tr><th scope="col">system</th>{head}</tr></thead><tbody>{body}</tbody>'
    converted = any(entry["pairs"] for entry in evaluation.summary.values())
    return (
        f'<h2>Summary</h2><div class="scroll" tabindex="0"><table id="summary">{table}</table></div>'
        + paper_table(tables.CONVERSION if converted else tables.RESYNTHESIS)
    )


def _plot_section(evaluation: Evaluation) -> str:
    figures = _rate_plots(evaluation)
    for system in evaluation.systems:
        details = evaluation.details.get(system, {})
        pitch, voicing = plots.f0_histogram(details)
        if voicing.sum():
            name = html.escape(system)
            picture = plots.histogram_plot(pitch, f"F0 of {system} against the reference")
            figures.append(
                f'<figure class="f0">{picture}<figcaption>{name}: F0 of the reference (to the right) '
                f"and generated (up), logarithmic</figcaption></figure>"
                f"<figure><figcaption>{name}: voicing</figcaption>"
                f"{plots.voicing_table(voicing)}</figure>"
            )
        own = {row["name"]: row["speaker"] for row in evaluation.rows if row["system"] == system}
        table = plots.speaker_confusion(details, own)
        if table:
            figures.append(
                f"<figure><figcaption>{html.escape(system)}: the enrolled speaker that each utterance "
                f'is most similar to</figcaption><div class="scroll" tabindex="0">{table}</div>'
                "</figure>"
            )
    return f'<h2>Plots</h2><div class="plots">{"".join(figures)}</div>' if figures else ""


def _rate_plots(evaluation: Evaluation) -> list[str]:
    known, figures = {column.name: column for column in evaluation.columns}, []
    for axes in QUALITY_AXES:
        found = {axis: _rates(evaluation, known[axis]) for axis in axes if axis in known}
        drawn = [axis for axis, points in found.items() if points][:1]
        for axis in drawn:
            better = known[axis].better
            label = f"{known[axis].label} ({better} is better)"
            plot = plots.scatter_plot(found[axis], "bit/s of the file", label)
            caption = "<figcaption>Rate against quality</figcaption>"
            figures.append(f'<figure class="wide">{plot}{caption}</figure>')
    return figures


def _rates(evaluation: Evaluation, column: Column) -> dict[str, tuple[float, float]]:
    points = {}
    for system, entry in evaluation.summary.items():
        rate, quality = (
            entry["all"].get(name, {}).get("mean") for name in ("bits_per_second", column.name)
        )
        if rate and quality is not None and math.isfinite(rate + quality):
            points[system] = (rate, quality * column.scale)
    return points


def _rows_section(evaluation: Evaluation) -> str:
    return (
        "<h2>All utterances</h2><p><label>Show those with <input id=filter type=search "
        'placeholder="part of a name, speaker or system"></label> <span id=shown></span></p>'
        '<div class="scroll" tabindex="0"><table id="rows"><thead></thead><tbody></tbody></table></div>'
        "<p><button id=more type=button>Show more</button></p>"
    )


def _rows_data(evaluation: Evaluation) -> str:
    """The table's rows as JSON that the page's script draws, a hundred at a time."""
    used = {name for row in evaluation.rows for name in row if row[name] is not None}
    columns = [column for column in evaluation.columns if column.name in used]
    rows = [
        [row["name"], row["system"], row["speaker"]]
        + [row.get(column.name) for column in columns]
        + ["; ".join([*row["notes"], *filter(None, [_reason(row)])])]
        for row in evaluation.rows
    ]
    heads = [{"label": c.label, "digits": c.digits, "scale": c.scale} for c in columns]
    data = json.dumps({"columns": heads, "rows": rows}, ensure_ascii=False, separators=(",", ":"))
    safe = data.replace("</", "<\\/")  # a name must not end the script
    return f'<script type="application/json" id="data">{safe}</script>'


def _groups_section(evaluation: Evaluation) -> str:
    parts = []
    for system in evaluation.systems:
        entry = evaluation.summary[system]
        for key, title in (("speakers", "by speaker"), ("pairs", "by pair of speakers")):
            groups = entry[key]
            if len(groups) > 1 or (key == "pairs" and groups):
                table = group_table(groups, evaluation.columns)
                parts.append(_details(f"{system}, {title}", table))
    return f"<h2>Groups</h2>{''.join(parts)}" if parts else ""


def _metrics_section(evaluation: Evaluation) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(entry["name"])}</th><td>{html.escape(entry["version"])}'
        f"</td><td>{html.escape(entry['predicts'])}</td></tr>"
        for entry in evaluation.metrics
    )
    return (
        '<h2>What was measured</h2><div class="scroll" tabindex="0"><table><thead><tr>'
        f"<th>metric</th><th>version</th><th>measures or predicts</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
