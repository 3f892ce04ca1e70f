"""Figures by matplotlib, which is imported on first use: as inline SVG for web pages, and as files.

Figures are made through matplotlib's object interface, so that no state of pyplot is touched.
"""

import html
import io
import re
from pathlib import Path
from typing import Any

from fairseq_resynth.data.storage.files import atomic_path

# Black text takes the color of the page, whose style sheet fills it; these lines suit light and dark.
LINE_COLOR = "#888888"
COLORS = ("#0b6bcb", "#d1495b", "#2e8b57", "#b8860b", "#7b4fb5", "#008b8b", "#8b5a2b", "#555555")
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def new_figure(width: float, height: float, **options: Any) -> Any:
    """A figure of width x height inches; `options` go to `matplotlib.figure.Figure`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a figure atomically; the suffix of `path` chooses the format."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def figure_svg(figure: Any, description: str) -> str:
    """The figure as an <svg> element for a page; its texts stay texts, and screen readers say the
    description."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(stream, format="svg", transparent=True, metadata=_METADATA)
    content = stream.getvalue()
    start = content.index("<svg")
    tag = content[start : content.index(">", start)]
    (box,) = re.findall(r'viewBox="[^"]*"', tag)
    body = content[start + len(tag) + 1 :]
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", body)  # the same in each figure of a page
    body = re.sub(r"(\.\d\d)\d+", r"\1", body)  # hundredths of a point are enough
    body = re.sub(r"<style.*?</style>", "", body)  # it would style the whole page
    body = re.sub(r" font-family: [^;]*;", "", body)  # the page chooses
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href")
    return f'<svg role="img" aria-label="{html.escape(description)}" {box}>{body.strip()}'


def style_axes(axes: Any) -> None:
    """Draws frame, ticks and grid in a gray that suits light and dark pages."""
    axes.tick_params(color=LINE_COLOR, labelsize=8)
    axes.grid(color=LINE_COLOR, alpha=0.3, linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_color(LINE_COLOR)
