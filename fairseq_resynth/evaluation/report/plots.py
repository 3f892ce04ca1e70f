"""Plots of a report as inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairseq_resynth.measures.figures import COLORS, LINE_COLOR, figure_svg, new_figure, style_axes

F0_RANGE = (60, 400)  # Hz: the range in which F0 is looked for
F0_EDGES = np.geomspace(*F0_RANGE, 49)
TRACK_RATE = 50  # Hz of the F0 tracks that are kept for plots


def _f0_axis(axis: Any, ticks: Sequence[int]) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": F0_RANGE})
    axis.set_ticks(ticks, [f"{hertz} Hz" for hertz in ticks])
    axis.set_ticks([], minor=True)


def tracking_plot(tracks: Mapping[str, Sequence[float]], description: str) -> str:
    """Draws F0 tracks (name -> Hz at 50 Hz, 0 = unvoiced) over each other, the first one in gray."""
    figure = new_figure(8, 1.9)
    axes = figure.add_axes((0.06, 0.14, 0.91, 0.74))
    style_axes(axes)
    colors = [LINE_COLOR, *COLORS]
    for index, (name, track) in enumerate(tracks.items()):
        track = np.asarray(track, dtype=float)
        voiced = np.pad(track > 0, 1)
        alone = voiced[1:-1] & ~voiced[:-2] & ~voiced[2:]  # a line needs two frames
        hertz = np.where(track > 0, np.clip(track, *F0_RANGE), np.nan)
        time, color = np.arange(len(track)) / TRACK_RATE, colors[index % len(colors)]
        width = 3 if index == 0 else 1.2
        axes.plot(time, hertz, color=color, linewidth=width, label=name)
        axes.plot(time[alone], hertz[alone], ".", color=color, markersize=width)
    _f0_axis(axes.yaxis, (75, 100, 150, 200, 300))
    axes.set_xlim(0, max([1, *map(len, tracks.values())]) / TRACK_RATE)
    axes.xaxis.set_major_formatter("{x:g} s")
    axes.legend(
        ncols=len(tracks), loc="lower left", bbox_to_anchor=(0, 0.98), fontsize=8, frameon=False,
        borderaxespad=0, labelcolor="linecolor", handlelength=1,
    )  # fmt: skip
    return figure_svg(figure, description)


def f0_histogram(details: Mapping[str, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts the frames of `f0_reference` and `f0_generated` of all utterances. Returns (48, 48) counts of
    the frames voiced in both over `F0_EDGES`, and (2, 2) counts of unvoiced and voiced frames; the
    reference is in the rows."""
    pitch, voicing = np.zeros((len(F0_EDGES) - 1,) * 2), np.zeros((2, 2), int)
    for entry in details.values():
        pair = [entry.get(key, []) for key in ("f0_reference", "f0_generated")]
        first, second = np.array(list(zip(*pair, strict=False)), float).reshape(-1, 2).T
        np.add.at(voicing, ((first > 0).astype(int), (second > 0).astype(int)), 1)
        both = (first > 0) & (second > 0)
        pitch += np.histogram2d(first[both], second[both], [F0_EDGES, F0_EDGES])[0]
    return pitch, voicing


def histogram_plot(counts: np.ndarray, description: str) -> str:
    """Draws the counts of `f0_histogram` in logarithmic shades, the reference to the right."""
    figure = new_figure(3, 3)
    axes = figure.add_axes((0.17, 0.1, 0.81, 0.88))
    style_axes(axes)
    shades = np.ma.masked_equal(np.log1p(counts.T), 0)  # cells without frames stay transparent
    # pixels of equal size, since the edges are spaced logarithmically as the axes are
    axes.imshow(
        shades, cmap="Blues", origin="lower", extent=(0, 1, 0, 1), aspect="auto",
        interpolation="none", transform=axes.transAxes,
        vmin=-0.3 * np.log1p(counts.max()),  # so that a single frame is seen
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        _f0_axis(axis, (75, 150, 300))
    return figure_svg(figure, description)


def scatter_plot(points: Mapping[str, tuple[float, float]], x_label: str, y_label: str) -> str:
    """Draws labeled points, label -> (x > 0, y), with a logarithmic x axis; `y_label` is on top."""
    figure = new_figure(7, 3.75)
    axes = figure.add_axes((0.09, 0.14, 0.89, 0.77))
    style_axes(axes)
    for index, (name, (x, y)) in enumerate(points.items()):
        axes.plot([x], [y], "o", color=COLORS[index % len(COLORS)])
        axes.annotate(name, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=9)
    xs = [x for x, _ in points.values()]
    low, high = min(xs) * 0.7, max(xs) * 2.2  # the labels need room on the right
    axes.set(xscale="log", xlim=(low, high), xlabel=x_label)
    ticks = [multiple * 10**power for power in range(-3, 9) for multiple in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.xaxis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.xaxis.set_ticks([], minor=True)
    axes.margins(y=0.15)
    axes.set_title(y_label, loc="left", fontsize=10)
    return figure_svg(figure, f"{y_label} against {x_label}")
