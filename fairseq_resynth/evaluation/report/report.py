"""The report: one HTML page with the figures, the plots and the players."""

import html
import json
import math
from dataclasses import dataclass
from pathlib import Path

from fairseq_resynth.data.storage.files import write_text
from fairseq_resynth.evaluation.metrics.catalogue import POOLED
from fairseq_resynth.evaluation.metrics.metric import REFERENCE, Column, Row
from fairseq_resynth.evaluation.report import plots, tables
from fairseq_resynth.evaluation.report.page import document, player
from fairseq_resynth.evaluation.runs.store import (
    Evaluation,
    comparison_note,
    failure,
    notes_by_kind,
)

# the rate is drawn against the first measured column of each group
QUALITY_AXES = (
    ("utmos", "distillmos", "dnsmos_ovrl", "pesq_wb"),
    ("wer", "dwer", "stoi"),
    ("ffe",),
)
# the first measured column ranks the utterances, unless the user names one
RANKED = ("ffe", "mel_l1", "mcd_dtw", "wer", "dwer", "stoi", "dnsmos_ovrl")


@dataclass(frozen=True)
class ReportOptions:
    """Options of a page."""

    title: str = "Evaluation"
    examples: int = 10  # number of best and number of worst utterances that have players
    rank_by: str = ""  # column that determines best and worst; "": see `RANKED`
    # "embed" puts audio into the page, "link" links the files, "none" leaves players out
    audio: str = "embed"


def write_report(path: str | Path, evaluation: Evaluation, options: ReportOptions) -> None:
    """Writes the page atomically. Raises ValueError if `rank_by` or `audio` is invalid."""
    if options.audio not in ("embed", "link", "none"):
        raise ValueError(f"audio: found {options.audio!r}, expected embed, link or none")
    path = Path(path)
    sections = [
        _head(evaluation, options.title),
        _summary_section(evaluation),
        _plot_section(evaluation),
        _examples_section(path, evaluation, options),
        _rows_section(evaluation),
        _groups_section(evaluation),
        _metrics_section(evaluation),
    ]
    body = f"<main>{''.join(sections)}</main>"
    write_text(path, document(options.title, body, ["report.css"], ["report.js"]))


def _details(title: str, body: str, is_open: bool = False) -> str:
    return f"<details{' open' * is_open}><summary>{html.escape(title)}</summary>{body}</details>"


def _head(evaluation: Evaluation, title: str) -> str:
    names = {row["name"] for row in evaluation.rows if row["system"] != REFERENCE}
    systems = [system for system in evaluation.systems if system != REFERENCE]
    text = (
        f"<h1>{html.escape(title)}</h1><p>{len(names)} utterances of "
        f"{html.escape(', '.join(systems))}. Intervals are 95 %, by bootstrap over utterances.</p>"
    )
    note = comparison_note(evaluation.rows)
    text += f"<p><strong>{html.escape(note)}</strong></p>" if note else ""
    failed = [f"{name}: {reason}" for name, reason in evaluation.failed.items()]
    missing = [f"{name}: {reason}" for name, reason in evaluation.missing.items()]
    without = evaluation.settings.get("without_transcript") or []
    open_lists = {
        f"{len(failed)} utterances not measured, or only in part": failed,
        f"{len(missing)} metrics not run": missing,
    }
    lists = {f"{len(without)} references without a transcript": without}
    for kind, names in notes_by_kind(evaluation.rows).items():
        lists[f"{kind} ({len(names)})"] = names
    for system, left in evaluation.unpaired.items():
        for side in ("generated", "reference"):
            names = left[f"only_{side}"]
            lists[f"{system}: {len(names)} {side} files without a partner"] = names
    for title, names in [*open_lists.items(), *lists.items()]:
        if names:
            items = "".join(f"<li>{html.escape(name)}</li>" for name in names)
            text += _details(title, f"<ul>{items}</ul>", title in open_lists)
    return text


def _summary_section(evaluation: Evaluation) -> str:
    groups = {system: evaluation.summary[system]["all"] for system in evaluation.systems}
    shown = tables.figures_table(groups, (*evaluation.columns, *POOLED), "system", "summary")
    converted = any(entry["pairs"] for entry in evaluation.summary.values())
    paper = tables.paper_table(tables.CONVERSION if converted else tables.RESYNTHESIS)
    return f"<h2>Summary</h2>{shown}{paper}"


def _plot_section(evaluation: Evaluation) -> str:
    figures = _rate_plots(evaluation)
    for system in evaluation.systems:
        details = evaluation.details.get(system, {})
        pitch, voicing = plots.f0_histogram(details)
        if voicing.sum():
            plot = plots.histogram_plot(pitch, f"F0 of {system} against the reference")
            caption = f"{system}: F0 of the reference (right) and generated (up), logarithmic"
            figures.append(_figure(plot, caption, "f0"))
            figures.append(_figure(tables.voicing_table(voicing), f"{system}: voicing"))
        own = {row["name"]: row["speaker"] for row in evaluation.rows if row["system"] == system}
        if confusion := tables.speaker_confusion(details, own):
            caption = f"{system}: the enrolled speaker that each utterance is most similar to"
            figures.append(_figure(confusion, caption))
    return f'<h2>Plots</h2><div class="plots">{"".join(figures)}</div>' if figures else ""


def _figure(content: str, caption: str, kind: str = "") -> str:
    caption = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f'<figure class="{kind}">{content}{caption}</figure>'


def _rate_plots(evaluation: Evaluation) -> list[str]:
    known, figures = {column.name: column for column in evaluation.columns}, []
    for names in QUALITY_AXES:
        points = {name: _rates(evaluation, known[name]) for name in names if name in known}
        for name in [name for name in points if points[name]][:1]:
            label = f"{known[name].label} ({known[name].better} is better)"
            plot = plots.scatter_plot(points[name], "bit/s of the file", label)
            figures.append(_figure(plot, "Rate against quality", "wide"))
    return figures


def _rates(evaluation: Evaluation, column: Column) -> dict[str, tuple[float, float]]:
    """The rate and the quality of each system that has both."""
    points = {}
    for system, entry in evaluation.summary.items():
        names = "bits_per_second", column.name
        rate, quality = (entry["all"].get(name, {}).get("mean") for name in names)
        if rate and quality is not None and math.isfinite(rate + quality):
            points[system] = (rate, quality * column.scale)
    return points


def _ranking_column(evaluation: Evaluation, wanted: str) -> Column | None:
    """The column `wanted`, or the first measured one of `RANKED`. Raises ValueError if there is no such
    column, or neither of its ends is better."""
    known = {column.name: column for column in evaluation.columns if column.better}
    if wanted and wanted not in known:
        raise ValueError(f"--rank-by {wanted!r}: expected one of {', '.join(known)}")
    measured = {name for row in evaluation.rows for name in row if row[name] is not None}
    names = [wanted] if wanted else RANKED
    return next((known[name] for name in names if name in known and name in measured), None)


def _best_first(evaluation: Evaluation, column: Column) -> list[Row]:
    """The rows of the first system that has the column."""
    measured = [row for row in evaluation.rows if row.get(column.name) is not None]
    names = [row["system"] for row in measured if row["system"] != REFERENCE]
    sign = 1 if column.better == "lower" else -1
    own = [row for row in measured if row["system"] in names[:1]]
    return sorted(own, key=lambda row: (sign * row[column.name], row["name"]))


def _examples_section(page: Path, evaluation: Evaluation, options: ReportOptions) -> str:
    """Players of the best and worst utterances, the reference next to every system."""
    column = _ranking_column(evaluation, options.rank_by)
    if options.audio == "none" or not options.examples or column is None:
        return ""
    ranked, count, parts = _best_first(evaluation, column), options.examples, ["<h2>Listen</h2>"]
    for title, rows in (("Best", ranked[:count]), ("Worst", ranked[count:][-count:][::-1])):
        if rows:
            label = html.escape(f"{title} {len(rows)} of {rows[0]['system']} by {column.label}")
            embed = options.audio == "embed"
            blocks = "".join(_example(page, evaluation, row, column, embed) for row in rows)
            parts.append(f"<h3>{label}</h3>{blocks}")
    return "".join(parts)


def _example(page: Path, evaluation: Evaluation, row: Row, column: Column, embed: bool) -> str:
    shown = [(REFERENCE, row, "reference")]
    good = {(r["system"], r["name"]): r for r in evaluation.rows if not r["error"]}
    for system in evaluation.systems:
        # baselines do not convert, so theirs has the reference's name
        other = good.get((system, row["name"])) or good.get((system, row["reference_name"]))
        if other and system != REFERENCE:
            shown.append((system, other, "generated"))
    tracks, figures = {}, []
    for system, other, side in shown:
        details = evaluation.details.get(other["system"], {}).get(other["name"], {})
        tracks[system] = details.get(f"f0_{side}", [])
        try:
            content = player(Path(other[side]), page, system, embed, tracks[system])
        except (FileNotFoundError, ValueError) as error:
            content = html.escape(str(error))
        caption = f"<figcaption>{html.escape(system)}</figcaption>"
        figures.append(f"<figure>{caption}{content}</figure>")
    words = "".join(
        f"<p>{label}: {html.escape(row[key])}</p>"
        for label, key in (("transcript", "transcript"), ("recognized", "heard"))
        if row.get(key)
    )
    plot = (
        plots.tracking_plot(tracks, f"F0 of {row['name']}")
        if any(map(len, tracks.values()))
        else ""
    )
    value = tables.number(row[column.name], column)
    return (
        f'<section class="example"><h4>{html.escape(row["name"])} '
        f'<span class="note">{html.escape(column.label)} {value}</span></h4>{words}'
        f'<div class="players">{"".join(figures)}</div>{plot}</section>'
    )


def _rows_section(evaluation: Evaluation) -> str:
    """The table of all utterances: its rows are JSON that the page's script draws, a hundred at a time."""
    used = {name for row in evaluation.rows for name in row if row[name] is not None}
    columns = [column for column in evaluation.columns if column.name in used]
    rows = [
        [row[name] for name in ("name", "system", "speaker")]
        + [row.get(column.name) for column in columns]
        + ["; ".join(filter(None, [*row["notes"], failure(row)]))]
        for row in evaluation.rows
    ]
    heads = [{"label": c.label, "digits": c.digits, "scale": c.scale} for c in columns]
    data = json.dumps({"columns": heads, "rows": rows}, ensure_ascii=False, separators=(",", ":"))
    safe = data.replace("</", "<\\/")  # a name must not end the script
    return (
        "<h2>All utterances</h2><p><label>Show those with <input id=filter type=search "
        'placeholder="part of a name, speaker or system"></label> <span id=shown></span></p>'
        '<div class="scroll" tabindex="0"><table id="rows"><thead></thead><tbody></tbody></table></div>'
        "<p><button id=more type=button>Show more</button></p>"
        f'<script type="application/json" id="data">{safe}</script>'
    )


def _groups_section(evaluation: Evaluation) -> str:
    parts = []
    for system in evaluation.systems:
        for key, title in (("speakers", "by speaker"), ("pairs", "by pair of speakers")):
            groups = evaluation.summary[system][key]
            if len(groups) > 1 or (key == "pairs" and groups):
                shown = tables.figures_table(groups, evaluation.columns)
                parts.append(_details(f"{system}, {title}", shown))
    return f"<h2>Groups</h2>{''.join(parts)}" if parts else ""


def _metrics_section(evaluation: Evaluation) -> str:
    rows = [
        (entry["name"], [f"<td>{html.escape(entry[key])}</td>" for key in ("version", "predicts")])
        for entry in evaluation.metrics
    ]
    head = ["metric", "version", "measures or predicts"]
    return f"<h2>What was measured</h2>{tables.table(head, rows)}"
