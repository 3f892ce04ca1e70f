"""Plots as inline SVG and small PNGs: no library, and sharp on a phone."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairseq_resynth.evaluation.report.page import image
from fairseq_resynth.measures.pictures import indexed_png

COLOURS = ("#0b6bcb", "#d1495b", "#2e8b57", "#b8860b", "#7b4fb5", "#008b8b", "#8b5a2b", "#555555")
REFERENCE_COLOUR = "#8a8a8a"
F0_EDGES = np.geomspace(60, 400, 49)  # Hz: the range that F0 is looked for in
FRAMES_A_SECOND = 50  # of the tracks kept for plots


def _svg(width: int, height: int, label: str, body: str) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _polylines(track: Sequence[float], width: float, height: float, frames: int) -> list[str]:
    """One list of points for each voiced stretch, on a logarithmic axis from 60 to 400 Hz."""
    lines, points = [], []
    for index, hertz in enumerate([*track, 0]):
        if hertz > 0:
            place = math.log(hertz / 60) / math.log(400 / 60)
            y = height * (1 - min(max(place, 0), 1))
            points.append(f"{width * index / frames:.1f},{y:.1f}")
        elif points:
            lines.append(" ".join(points if len(points) > 1 else points * 2))
            points = []
    return lines


def tracking_plot(tracks: Mapping[str, Sequence[float]], label: str) -> str:
    """Draws F0 tracks over each other, the first in grey.

    Args:
        tracks: name -> Hz at 50 Hz, 0 = unvoiced.
        label: what a screen reader says.
    """
    width, height = 640, 120
    frames = max([len(track) for track in tracks.values()] + [1])
    parts, legend = [], ""
    for hertz in (75, 100, 150, 200, 300):
        y = height * (1 - math.log(hertz / 60) / math.log(400 / 60))
        parts.append(f'<line class="grid" x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(width - 2, y - 2, f"{hertz} Hz", "end"))
    for index, (name, track) in enumerate(tracks.items()):
        colour = REFERENCE_COLOUR if index == 0 else COLOURS[(index - 1) % len(COLOURS)]
        thickness = 4 if index == 0 else 1.6
        for points in _polylines(track, width, height, frames):
            parts.append(
                f'<polyline fill="none" stroke="{colour}" stroke-width="{thickness}" points="{points}"/>'
            )
        legend += f'<tspan style="fill:{colour}">{html.escape(name)}   </tspan>'
    parts.append(f'<text x="4" y="{height + 14}" xml:space="preserve">{legend}</text>')
    return _svg(width, height + 20, label, "".join(parts))


def f0_histogram(details: Mapping[str, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts frames by reference and generated F0, and by voicing.

    Args:
        details: name -> `f0_reference` and `f0_generated`.

    Returns:
        (48, 48) counts of frames voiced in both, rows by the reference, over `F0_EDGES`; and (2, 2)
        counts, rows the reference unvoiced and voiced, columns the generated.
    """
    pitch, voicing = np.zeros((len(F0_EDGES) - 1,) * 2), np.zeros((2, 2), int)
    for entry in details.values():
        pair = [np.array(entry.get(key, []), float) for key in ("f0_reference", "f0_generated")]
        length = min(map(len, pair))
        first, second = (track[:length] for track in pair)
        np.add.at(voicing, ((first > 0).astype(int), (second > 0).astype(int)), 1)
        both = (first > 0) & (second > 0)
        pitch += np.histogram2d(first[both], second[both], [F0_EDGES, F0_EDGES])[0]
    return pitch, voicing


def histogram_image(counts: np.ndarray, description: str) -> str:
    """Draws counts in logarithmic shades, reference to the right, generated upwards."""
    shades = np.log1p(counts) / max(float(np.log1p(counts).max()), 1e-9)
    pixels = (shades.T[::-1] * 31).round().astype(np.uint8)
    ramp = np.linspace(255, 30, 32)
    palette = np.stack([ramp, np.linspace(255, 70, 32), np.linspace(255, 140, 32)], 1)
    return image(indexed_png(pixels, palette.astype(np.uint8)), description)


def voicing_table(counts: np.ndarray) -> str:
    """Returns the 2 x 2 voicing confusions in per cent of all frames."""
    share = 100 * counts / max(counts.sum(), 1)
    rows = "".join(
        f'<tr><th scope="row">reference {name}</th><td class="number">{share[index][0]:.1f} %</td>'
        f'<td class="number">{share[index][1]:.1f} %</td></tr>'
        for index, name in enumerate(("unvoiced", "voiced"))
    )
    return (
        '<table><thead><tr><th></th><th scope="col">unvoiced</th><th scope="col">voiced</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def speaker_confusion(details: Mapping[str, Mapping[str, Any]], targets: Mapping[str, str]) -> str:
    """Returns a table: of each target speaker's utterances, which enrolled speaker scores best.

    Args:
        details: name -> `speaker_scores`.
        targets: name -> whose voice it should be.
    """
    counts: dict[str, dict[str, int]] = {}
    for name, entry in details.items():
        scores = entry.get("speaker_scores")
        if scores and targets.get(name):
            best = max(scores, key=scores.get)
            row = counts.setdefault(targets[name], {})
            row[best] = row.get(best, 0) + 1
    columns = sorted({who for row in counts.values() for who in row} | set(counts))
    if not counts:
        return ""
    head = "".join(f'<th scope="col">{html.escape(who)}</th>' for who in columns)
    body = "".join(_confusion_row(who, row, columns) for who, row in sorted(counts.items()))
    return f"<table><thead><tr><th>target</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _confusion_row(target: str, row: Mapping[str, int], columns: Sequence[str]) -> str:
    total = sum(row.values())
    cells = []
    for who in columns:
        share = row.get(who, 0) / total
        colour = "46,139,87" if who == target else "209,73,91"
        style = f"background:rgba({colour},{share:.2f})"
        cells.append(f'<td class="number" style="{style}">{row.get(who, 0) or ""}</td>')
    return f'<tr><th scope="row">{html.escape(target)}</th>{"".join(cells)}</tr>'


def scatter_plot(points: Mapping[str, tuple[float, float]], x_label: str, y_label: str) -> str:
    """Draws labelled points with a logarithmic x axis.

    Args:
        points: label -> (x > 0, y).
        x_label: under the axis.
        y_label: over the plot.
    """
    width, height, left, bottom = 560, 300, 60, 40
    xs, ys = (np.array([point[i] for point in points.values()], float) for i in (0, 1))
    low, high = math.log10(xs.min()) - 0.15, math.log10(xs.max()) + 0.35
    floor, top = ys.min(), ys.max()
    margin = (top - floor) * 0.15 or abs(top) * 0.1 or 1.0
    floor, top = floor - margin, top + margin

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / (high - low)
        return left + (width - left) * across, (height - bottom) * (1 - (y - floor) / (top - floor))

    digits = max(0, 1 - math.floor(math.log10(top - floor)))
    parts = [
        f'<rect class="frame" x="{left}" y="0" width="{width - left}" height="{height - bottom}"/>'
    ]
    for exponent in range(math.floor(low), math.floor(high) + 1):
        for multiple in (1, 2, 5):
            value = multiple * 10.0**exponent
            if low <= math.log10(value) <= high:
                x = place(value, floor)[0]
                parts.append(_text(x, height - bottom + 16, f"{value:,.0f}", "middle"))
    for value in np.linspace(floor, top, 5)[1:-1]:
        y = place(xs[0], value)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 5, y + 4, f"{value:.{digits}f}", "end"))
    for index, (name, point) in enumerate(points.items()):
        x, y = place(*point)
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(x + 8, y + 4, name))
    parts += [_text(width / 2, height - 6, x_label, "middle"), _text(left + 6, 14, y_label)]
    return _svg(width, height, f"{y_label} against {x_label}", "".join(parts))
