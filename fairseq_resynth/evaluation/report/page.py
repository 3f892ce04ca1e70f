"""Web pages that open from a file, with no server and no network: players beside spectrograms."""

import base64
import html
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from fairseq_resynth.data.audio.files import load_any_audio
from fairseq_resynth.data.storage.files import write_text
from fairseq_resynth.measures.pictures import spectrogram_png

ASSETS = Path(__file__).parent / "assets"
__all__ = ["audio_source", "cell", "document", "image", "spectrogram_png", "write_gallery"]


def asset(name: str) -> str:
    """Returns one of the package's style sheets or scripts as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


def document(title: str, body: str, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """Wraps a body into a whole page; style sheets and scripts are written into it.

    Args:
        title: plain text.
        body: HTML.
        styles: asset names beside the shared `page.css`.
        scripts: asset names beside the shared `page.js`.
    """
    css = "\n".join(asset(name) for name in ("page.css", *styles))
    javascript = "\n".join(asset(name) for name in ("page.js", *scripts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>\n'
        f"<style>\n{css}</style></head>\n<body>\n{body}\n"
        f"<script>\n{javascript}</script></body></html>\n"
    )


def data_uri(content: bytes, kind: str) -> str:
    """Returns `content` as a data: address of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def image(png: bytes, description: str) -> str:
    """Returns an <img> with the picture inside it; `description` stands in where it is not seen."""
    return f'<img alt="{html.escape(description)}" src="{data_uri(png, "image/png")}">'


def flac_bytes(wav: np.ndarray, sample_rate: int) -> bytes:
    """Returns (T,) samples as 16-bit FLAC: lossless, half of a WAV, played by all browsers."""
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(wav, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def audio_source(path: Path, page: Path, embed: bool) -> str:
    """Returns what a player's `src` is.

    Args:
        path: the audio file.
        page: the page that will play it.
        embed: put the samples into the page; else link the file relative to the page.
    """
    if not embed:
        relative = os.path.relpath(path.resolve(), page.resolve().parent)
        return "/".join(map(_quote, Path(relative).parts))
    return data_uri(flac_bytes(*load_any_audio(path)), "audio/flac")


def _quote(part: str) -> str:
    return part if part == ".." else quote(part)


def cell(
    path: Path,
    page: Path,
    label: str,
    embed: bool = False,
    f0_of: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> str:
    """Returns a spectrogram over a player, as HTML.

    Args:
        path: the audio file.
        page: the page that it goes into.
        label: what a screen reader says.
        embed: see `audio_source`.
        f0_of: maps (wav, sample_rate) to (N,) Hz, drawn over the spectrogram; None: not drawn.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read; it is named.
    """
    wav, sample_rate = load_any_audio(path)
    f0 = f0_of(wav, sample_rate) if f0_of else None
    picture = image(spectrogram_png(wav, f0, sample_rate), f"spectrogram of {label}")
    source = html.escape(audio_source(path, page, embed))
    name = html.escape(label)
    return (
        f'{picture}<audio controls preload="metadata" aria-label="{name}" src="{source}"></audio>'
    )


def write_gallery(
    path: str | Path,
    title: str,
    rows: Iterable[tuple[str, Mapping[str, str | Path]]],
    introduction: str = "",
    embed: bool = False,
    f0_of: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> None:
    """Writes a page with one row an utterance and one player with its spectrogram a column.

    Args:
        path: the .html file, written atomically.
        title: plain text.
        rows: (name, {column: audio file}); a column that a row lacks stays empty.
        introduction: plain text under the title.
        embed: put the audio into the page, so that the one file can be sent; else link it,
            relative. f0_of: maps (wav, sample_rate) to (N,) Hz to draw over the spectrograms.

    Raises:
        ValueError: no rows, or a file that cannot be read.
        FileNotFoundError: a file that is missing.
    """
    path, rows = Path(path), list(rows)
    if not rows:
        raise ValueError(f"nothing to show in {path}: no rows")
    columns = list(dict.fromkeys(column for _, files in rows for column in files))
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "\n".join(_gallery_row(path, name, files, columns, embed, f0_of) for name, files in rows)
    text = "".join(f"<p>{html.escape(line)}</p>" for line in introduction.splitlines() if line)
    content = (
        f"<main><h1>{html.escape(title)}</h1>{text}\n"
        f'<table class="gallery"><thead><tr><th scope="col">utterance</th>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></main>"
    )
    write_text(path, document(title, content))


def _gallery_row(
    page: Path,
    name: str,
    files: Mapping[str, str | Path],
    columns: Sequence[str],
    embed: bool,
    f0_of: Callable[[np.ndarray, int], np.ndarray] | None,
) -> str:
    cells = []
    for column in columns:
        inside = "–"
        if column in files:
            inside = cell(Path(files[column]), page, f"{name}, {column}", embed, f0_of)
        cells.append(f'<td data-column="{html.escape(column)}">{inside}</td>')
    return f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>'
