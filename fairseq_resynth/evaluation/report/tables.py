"""Tables of figures in a report."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq_resynth.evaluation.metrics.metric import Column


def number(value: float | None, column: Column) -> str:
    """A figure as the report shows it; – if it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * column.scale:.{column.digits}f}"


def figure_cell(figure: Mapping[str, Any] | None, column: Column) -> str:
    """A cell with a mean, its interval and the number of utterances."""
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
    """The heading of a column with an arrow in the better direction."""
    arrow = {"lower": " ↓", "higher": " ↑", "": ""}[column.better]
    return f'<th scope="col" class="number">{html.escape(column.label)}{arrow}</th>'


def paper_table(rows: Sequence[tuple]) -> str:
    """One of the paper's tables as HTML."""
    labels = "".join(
        f'<th scope="col" class="number">{name.upper()}{"" if name == "mos" else " %"}</th>'
        for name in COLUMNS
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
        f'<h3>The paper&#39;s figures</h3><p class="note">{NOTE}</p>'
        f'<div class="scroll" tabindex="0"><table id="paper">{table}</table></div>'
    )


def group_table(groups: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """A table of figures by speaker or by pair of speakers."""
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


COLUMNS = ("wer", "vde", "ffe", "eer", "mos")
NOTE = (
    "The paper's own figures, in per cent, on its data and with its recogniser and speaker encoder: "
    "this evaluation would give other values for the published system. In Table 2, VDE and FFE are of "
    "speech with the pitch flattened; higher is better there."
)
# (system, WER, VDE, FFE, EER, MOS); None: not in the table
RESYNTHESIS = (
    ("LJSpeech, recordings", 5.60, None, None, None, 4.33),
    ("LJSpeech, CPC", 8.51, 13.48, 15.19, None, 3.31),
    ("LJSpeech, HuBERT", 6.96, 13.09, 15.00, None, 3.66),
    ("LJSpeech, VQ-VAE", 8.85, 7.19, 8.54, None, 3.66),
    ("VCTK, recordings", 4.32, None, None, 3.25, 4.08),
    ("VCTK, CPC", 14.49, 10.56, 11.13, 4.25, 3.33),
    ("VCTK, HuBERT", 11.44, 9.77, 10.43, 5.79, 3.41),
    ("VCTK, VQ-VAE", 19.80, 5.20, 5.59, 4.28, 3.39),
)
CONVERSION = (
    ("VCTK, recordings", 4.32, None, None, 3.25, 4.11),
    ("VCTK to LJSpeech, CPC", 16.11, 46.68, 48.71, 0.46, 3.57),
    ("VCTK to LJSpeech, HuBERT", 12.23, 39.20, 48.42, 0.31, 3.71),
    ("VCTK to LJSpeech, VQ-VAE", 36.96, 10.54, 12.08, 9.65, 2.90),
    ("VCTK, CPC", 15.98, 25.29, 26.97, 4.83, 3.42),
    ("VCTK, HuBERT", 12.72, 23.46, 26.67, 6.01, 3.58),
    ("VCTK, VQ-VAE", 29.44, 7.03, 7.80, 11.56, 3.08),
)
