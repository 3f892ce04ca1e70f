"""Tables of a report as HTML."""

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fairseq_resynth.evaluation.metrics.metric import Column

ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
PAPER_COLUMNS = ("wer", "vde", "ffe", "eer", "mos")
PAPER_NOTE = (
    "The paper's own figures, in per cent, on its data and with its recognizer and speaker encoder: "
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


def number(value: float | None, column: Column) -> str:
    """A figure as the report shows it; – if it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * column.scale:.{column.digits}f}"


def table(
    head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], identifier: str = ""
) -> str:
    """A table that scrolls; a row is the plain text of its heading and its cells as HTML."""
    heads = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows
    )
    name = f' id="{identifier}"' if identifier else ""
    return (
        f'<div class="scroll" tabindex="0"><table{name}><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number_cell(text: str, attributes: str = "") -> str:
    """A cell of a number; `attributes` are HTML."""
    return f'<td class="number"{attributes}>{text}</td>'


def _figure_cell(figure: Mapping[str, Any] | None, column: Column) -> str:
    if not figure:
        return number_cell("–")
    interval = ""
    if figure["low"] is not None and math.isfinite(figure["low"]):
        low, high = (number(figure[key], column) for key in ("low", "high"))
        interval = f'<span class="interval">{low} … {high}</span>'
    hint = f"{figure['count']} utterances"
    hint += f", {figure['undefined']} undefined" if figure["undefined"] else ""
    return number_cell(number(figure["mean"], column) + interval, f' title="{hint}"')


def figures_table(
    groups: Mapping[str, Mapping[str, Any]],
    columns: Sequence[Column],
    corner: str = "",
    identifier: str = "",
) -> str:
    """A table of means with intervals and numbers of utterances, one row per group. `groups` maps names to
    the figures of `store.summarize`; columns that no group has are left out."""
    columns = [c for c in columns if any(c.name in figures for figures in groups.values())]
    head = [corner, *(column.label + ARROWS[column.better] for column in columns)]
    rows = (
        (name, [_figure_cell(figures.get(column.name), column) for column in columns])
        for name, figures in groups.items()
    )
    return table(head, rows, identifier)


def paper_table(rows: Sequence[tuple]) -> str:
    """One of the paper's tables."""
    head = [f"{name.upper()}{'' if name == 'mos' else ' %'}" for name in PAPER_COLUMNS]
    lines = [
        (name, [number_cell("–" if value is None else f"{value:.2f}") for value in values])
        for name, *values in rows
    ]
    shown = table(["in the paper", *head], lines, "paper")
    return f'<h3>The paper&#39;s figures</h3><p class="note">{PAPER_NOTE}</p>{shown}'


def voicing_table(counts: np.ndarray) -> str:
    """The 2 x 2 voicing confusions of `plots.f0_histogram` in per cent of all frames."""
    shares = 100 * counts / max(counts.sum(), 1)
    names = ("unvoiced", "voiced")
    rows = [
        (f"reference {name}", [number_cell(f"{share:.1f} %") for share in row])
        for name, row in zip(names, shares, strict=True)
    ]
    return table(["", *names], rows)


def speaker_confusion(details: Mapping[str, Mapping[str, Any]], targets: Mapping[str, str]) -> str:
    """A table of the enrolled speaker that scores best, by target speaker; "" without scores. `details` has
    the `speaker_scores` of each utterance, `targets` the speaker that it should sound like."""
    counts: dict[str, Counter] = {}
    for name, entry in details.items():
        scores = entry.get("speaker_scores")
        if scores and targets.get(name):
            counts.setdefault(targets[name], Counter())[max(scores, key=scores.get)] += 1
    columns = sorted({who for row in counts.values() for who in row} | set(counts))
    rows = []
    for target, row in sorted(counts.items()):
        cells = []
        for who in columns:
            color = "46,139,87" if who == target else "209,73,91"
            style = f"background:rgba({color},{row[who] / row.total():.2f})"
            cells.append(number_cell(str(row[who] or ""), f' style="{style}"'))
        rows.append((target, cells))
    return table(["target", *columns], rows) if rows else ""
