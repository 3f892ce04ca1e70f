"""Tables of figures in a report."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq_resynth.evaluation import paper
from fairseq_resynth.evaluation.metric import Column


def number(value: float | None, column: Column) -> str:
    """Formats a figure as the report shows it; – where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * column.scale:.{column.digits}f}"


def figure_cell(figure: Mapping[str, Any] | None, column: Column) -> str:
    """Returns a cell with a mean, its interval, and how many utterances it is of."""
    if not figure:
        return '<td class="number">–</td>'
    interval = ""
    if figure["low"] is not None and math.isfinite(figure["low"]):
        low, high = (number(figure[key], column) for key in ("low", "high"))
        interval = f'<span class="interval">{low} … {high}</span>'
    hint = f"{figure['count']} utterances"
    hint += f", {figure['undefined']} undefined" if figure["undefined"] else ""
    return f'<td class="number" title="{hint}">{number(figure["mean"], column)}{interval}</td>'


def heading(column: Column) -> str:
    """Returns a column's heading with an arrow to where better is."""
    arrow = {"lower": " ↓", "higher": " ↑", "": ""}[column.better]
    return f'<th scope="col" class="number">{html.escape(column.label)}{arrow}</th>'


def paper_table(rows: Sequence[tuple]) -> str:
    """Returns one of the paper's tables, see `evaluation.paper`."""
    labels = "".join(
        f'<th scope="col" class="number">{name.upper()}{"" if name == "mos" else " %"}</th>'
        for name in paper.COLUMNS
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="number">{"–" if v is None else f"{v:.2f}"}</td>' for v in values)
        + "</tr>"
        for name, *values in rows
    )
    table = (
        f'<thead><tr><th scope="col">in the paper</th>{labels}</tr></thead><tbody>{body}</tbody>'
    )
    return (
        f'<h3>The paper&#39;s figures</h3><p class="note">{paper.NOTE}</p>'
        f'<div class="scroll" tabindex="0"><table id="paper">{table}</table></div>'
    )


def group_table(groups: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Returns figures by speaker or by pair; groups are `summary.figures` by name."""
    columns = [c for c in columns if any(c.name in figures for figures in groups.values())]
    head = "".join(heading(column) for column in columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(figure_cell(figures.get(column.name), column) for column in columns)
        + "</tr>"
        for name, figures in groups.items()
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'
