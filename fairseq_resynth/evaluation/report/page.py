"""Web pages that open from a file, without a server or a network: players and spectrograms."""

import base64
import html
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.storage.files import write_text
from fairseq_resynth.measures.pictures import spectrogram_png

ASSETS = Path(__file__).parent / "assets"


def asset(name: str) -> str:
    """The text of one of the package's style sheets or scripts."""
    return (ASSETS / name).read_text(encoding="utf-8")


def document(title: str, body: str, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """A page around a body of HTML, with `page.css`, `page.js` and further assets inside."""
    css = "\n".join(asset(name) for name in ("page.css", *styles))
    javascript = "\n".join(asset(name) for name in ("page.js", *scripts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>\n'
        f"<style>\n{css}</style></head>\n<body>\n{body}\n"
        f"<script>\n{javascript}</script></body></html>\n"
    )


def data_uri(content: bytes, media_type: str) -> str:
    """The content as a `data:` address, such as "data:image/png;base64,…"."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def flac_bytes(wav: np.ndarray, sample_rate: int) -> bytes:
    """(T,) samples as 16-bit FLAC: lossless, half the size of a WAV, played by all browsers."""
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(wav, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def player(
    path: Path, page: Path, label: str, embed: bool, f0: Callable | Sequence[float] | None = None
) -> str:
    """A spectrogram over a player, as HTML for the file `page`, with a plain `label` for screen readers.

    `embed` puts the audio into the page instead of linking it. `f0` is (N,) Hz drawn over the spectrogram,
    or a function of wav and sample rate that gives it. Raises FileNotFoundError or ValueError if the file
    cannot be read.
    """
    wav, sample_rate = load_any_audio(path)
    if f0 is not None:
        f0 = f0(wav, sample_rate) if callable(f0) else np.asarray(f0, dtype=float)
    picture = data_uri(spectrogram_png(wav, f0, sample_rate), "image/png")
    if embed:
        source = data_uri(flac_bytes(wav, sample_rate), "audio/flac")
    else:
        source = quote(Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix())
    name = html.escape(label)
    return (
        f'<img alt="spectrogram of {name}" src="{picture}">'
        f'<audio controls preload="metadata" aria-label="{name}" src="{html.escape(source)}"></audio>'
    )


def write_gallery(
    path: str | Path,
    title: str,
    rows: Iterable[tuple[str, Mapping[str, str | Path]]],
    introduction: str = "",
    embed: bool = False,
    f0_of: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> None:
    """Writes a page with one row per utterance and one player with its spectrogram per column.

    `rows` are (name, {column: audio file}), and may lack columns; title and introduction are plain text.
    `embed` puts the audio into the page, so that the one file can be sent. `f0_of` maps wav and sample rate
    to (N,) Hz drawn over the spectrogram. Raises ValueError without rows, and FileNotFoundError or
    ValueError for an unreadable file.
    """
    path, rows = Path(path), list(rows)
    if not rows:
        raise ValueError(f"nothing to show in {path}: no rows")
    columns = list(dict.fromkeys(column for _, files in rows for column in files))
    lines = []
    for name, files in rows:
        cells = ""
        for column in columns:
            shown = "–"
            if column in files:
                shown = player(Path(files[column]), path, f"{name}, {column}", embed, f0_of)
            cells += f'<td data-column="{html.escape(column)}">{shown}</td>'
        lines.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>\n')
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    text = "".join(f"<p>{html.escape(line)}</p>" for line in introduction.splitlines() if line)
    content = (
        f"<main><h1>{html.escape(title)}</h1>{text}\n"
        f'<table class="gallery"><thead><tr><th scope="col">utterance</th>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(lines)}</tbody></table></main>"
    )
    write_text(path, document(title, content))
