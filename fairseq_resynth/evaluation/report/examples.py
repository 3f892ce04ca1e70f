"""The best and the worst utterances of a report, with players."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairseq_resynth.data.audio.files import load_any_audio
from fairseq_resynth.evaluation.metrics.metric import Column
from fairseq_resynth.evaluation.report.page import audio_source, image
from fairseq_resynth.evaluation.report.plots import tracking_plot
from fairseq_resynth.evaluation.runs.measure import REFERENCE, Row
from fairseq_resynth.evaluation.runs.store import Evaluation
from fairseq_resynth.measures.pictures import spectrogram_png

RANKED = ("ffe", "mel_l1", "mcd_dtw", "wer", "dwer", "stoi", "dnsmos_ovrl")


def ranking_column(evaluation: Evaluation, wanted: str = "") -> Column | None:
    """Returns the column that best and worst are by.

    Raises:
        ValueError: no such column, or one where neither end is better.
    """
    known = {column.name: column for column in evaluation.columns if column.better}
    if wanted and wanted not in known:
        raise ValueError(f"--rank-by {wanted!r}: expected one of {', '.join(known)}")
    measured = {name for row in evaluation.rows for name in row if row[name] is not None}
    for name in [wanted] if wanted else RANKED:
        if name in known and name in measured:
            return known[name]
    return None


def best_and_worst(
    evaluation: Evaluation, column: Column, count: int
) -> tuple[list[Row], list[Row]]:
    """Ranks the first system's utterances.

    Args:
        evaluation: of any number of systems; the first that has the column is ranked.
        column: what to rank by.
        count: of each end.

    Returns:
        Best rows, best first; worst rows, worst first; none twice.
    """
    for system in evaluation.systems:
        rows = [row for row in evaluation.rows if row["system"] == system]
        rows = [row for row in rows if row.get(column.name) is not None]
        if rows and system != REFERENCE:
            sign = 1 if column.better == "lower" else -1
            rows.sort(key=lambda row: (sign * row[column.name], row["name"]))
            best = rows[:count]
            return best, rows[len(best) :][-count:][::-1]
    return [], []


def example_rows(page: Path, evaluation: Evaluation, count: int, rank_by: str, audio: str) -> str:
    """Returns the section with players, reference and every system side by side."""
    column = ranking_column(evaluation, rank_by)
    if audio == "none" or not count or column is None:
        return ""
    best, worst = best_and_worst(evaluation, column, count)
    parts = ["<h2>Listen</h2>"]
    for title, rows in (("Best", best), ("Worst", worst)):
        if rows:
            blocks = "".join(_block(page, evaluation, row, column, audio) for row in rows)
            label = html.escape(f"{title} {len(rows)} of {rows[0]['system']} by {column.label}")
            parts.append(f"<h3>{label}</h3>{blocks}")
    return "".join(parts)


def _block(page: Path, evaluation: Evaluation, row: Row, column: Column, audio: str) -> str:
    same = _same_utterance(evaluation, row)
    cells = [_player(page, REFERENCE, Path(row["reference"]), _track(evaluation, row, True), audio)]
    tracks = {REFERENCE: _track(evaluation, row, True)}
    for other in same:
        track = _track(evaluation, other)
        tracks[other["system"]] = track
        cells.append(_player(page, other["system"], Path(other["generated"]), track, audio))
    value = f"{row[column.name] * column.scale:.{column.digits}f}"
    words = "".join(
        f"<p>{label}: {html.escape(text)}</p>"
        for label, text in (("said", row.get("transcript")), ("heard", row.get("heard")))
        if text
    )
    plot = tracking_plot(tracks, f"F0 of {row['name']}") if any(map(len, tracks.values())) else ""
    return (
        f'<section class="example"><h4>{html.escape(row["name"])} '
        f'<span class="note">{html.escape(column.label)} {value}</span></h4>{words}'
        f'<div class="players">{"".join(cells)}</div>{plot}</section>'
    )


def _same_utterance(evaluation: Evaluation, row: Row) -> list[Row]:
    """The row of each system by this name, or by the reference's: baselines convert nothing."""
    found = []
    for system in evaluation.systems:
        if system == REFERENCE:
            continue
        own = [r for r in evaluation.rows if r["system"] == system and not r["error"]]
        for name in (row["name"], row["reference_name"]):
            matching = [other for other in own if other["name"] == name]
            if matching:
                found.append(matching[0])
                break
    return found


def _track(evaluation: Evaluation, row: Row, reference: bool = False) -> Sequence[float]:
    entry = evaluation.details.get(row["system"], {}).get(row["name"], {})
    return entry.get("f0_reference" if reference else "f0_generated", [])


def _player(page: Path, system: str, path: Path, track: Sequence[float], audio: str) -> str:
    label = html.escape(system)
    try:
        wav, sample_rate = load_any_audio(path)
    except (FileNotFoundError, ValueError) as error:
        return f"<figure><figcaption>{label}</figcaption>{html.escape(str(error))}</figure>"
    picture = image(spectrogram_png(wav, np.array(track), sample_rate), f"spectrogram, {system}")
    source = html.escape(audio_source(path, page, audio == "embed"))
    return (
        f"<figure><figcaption>{label}</figcaption>{picture}"
        f'<audio controls preload="metadata" aria-label="{label}" src="{source}"></audio></figure>'
    )
