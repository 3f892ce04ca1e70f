"""Rate against distortion, ours and other codecs' on the same utterances in one run."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample
from fairseq_resynth.data.manifest import read_lines, read_splits
from fairseq_resynth.evaluation.runs.baselines import Anchor, Coder, fit
from fairseq_resynth.measures.figures import new_figure, save_figure
from fairseq_resynth.measures.spectral import mel_cepstral_distortion, mel_l1_distance
from fairseq_resynth.preparation.preprocess import find_sources

Measure = Callable[[np.ndarray, np.ndarray], float]


@dataclass
class Point:
    """One system at one rate.

    Attributes:
        family: points of one family are joined in the plot.
        label: of the system.
        bps: bit/s over all utterances, whole files.
        distortions: name of the measure -> mean over the utterances.
        failed: name of the utterance -> reason.
        missing: what to install, when the system could not run at all.
    """

    family: str
    label: str
    bps: float = 0.0
    distortions: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return dict(vars(self))


def recordings(
    paths: Sequence[str | Path], splits: Sequence[str] | None = None
) -> tuple[list[tuple[str, Path]], dict[str, str]]:
    """Lists the recordings of data directories, or of folders of audio.

    Args:
        paths: folders.
        splits: of the data directories; None: all.

    Returns:
        (name, path) of each, and who speaks in it where that is known.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: no such folder, or no audio in it.
    """
    listed, speakers = [], {}
    for folder in map(Path, paths):
        if not any(folder.glob("*.tsv")):
            listed += [
                (path.as_posix(), folder / path) for path in find_sources(folder, folder / "out")
            ]
            continue
        for split, manifest in read_splits(folder, splits).items():
            names = [f"{split}/{manifest.name(row)}" for row in range(len(manifest))]
            listed += [(name, manifest.path(row)) for row, name in enumerate(names)]
            if (folder / f"{split}.speaker").is_file():
                lines = read_lines(folder / f"{split}.speaker", len(names), "resynth manifest")
                speakers |= {name: line.strip() for name, line in zip(names, lines, strict=True)}
    return listed, speakers


def measures() -> dict[str, Measure]:
    """Returns the measures: mel L1 and mel cepstral distortion, STOI and PESQ where they are installed.

    None of them is fair to a codec that does not keep the waveform; `resynth evaluate` has word error rates.
    """
    found: dict[str, Measure] = {"mel_l1": mel_l1_distance, "mcd": mel_cepstral_distortion}
    try:
        from pystoi import stoi

        found["stoi"] = lambda reference, other: float(stoi(reference, other, SAMPLE_RATE))
    except ImportError:
        pass
    try:
        from pesq import pesq

        found["pesq"] = lambda reference, other: float(pesq(SAMPLE_RATE, reference, other, "wb"))
    except ImportError:
        pass
    return found


def ours(codec: SpeechCodec, speakers: Mapping[str, str]) -> Callable[[str, np.ndarray], tuple]:
    """Returns our coder: (name, (T,) float32) to the decoded (T,) and the bytes of its file.

    Args:
        codec: a bundle.
        speakers: by name, who speaks.
    """
    known = codec.resynthesizer.streams.speakers

    def code(name: str, wav: np.ndarray) -> tuple[np.ndarray, int]:
        speaker = speakers.get(name)
        speaker = speaker if speaker in known else None
        data = codec.encode(wav, speaker)
        voice = known[0] if speaker is None and known else None
        return fit(codec.decode(data, voice), len(wav)), len(data)

    return code


def run(
    utterances: Sequence[tuple[str, Path]],
    codecs: Mapping[str, SpeechCodec],
    anchors: Sequence[Anchor],
    speakers: Mapping[str, str] | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> list[Point]:
    """Codes every utterance with every system and measures it.

    Args:
        utterances: (name, audio).
        codecs: label -> bundle.
        anchors: other codecs.
        speakers: name -> speaker.
        progress: called after each utterance and system.
    """
    systems: list[tuple[Point, Callable[[str, np.ndarray], tuple]]] = []
    for label, codec in codecs.items():
        systems.append((Point("resynth", label), ours(codec, speakers or {})))
    for anchor in anchors:
        point = Point(anchor.family, anchor.label, missing=anchor.missing)
        systems.append((point, _unnamed(anchor.code)))
    found = measures()
    rows: dict[str, list[dict[str, float]]] = {point.label: [] for point, _ in systems}
    for name, path in utterances:
        wav = resample(*load_any_audio(path))
        for point, code in systems:
            if not point.missing:
                _measure(point, code, name, wav, found, rows[point.label])
            progress()
    for point, _ in systems:
        _summarise(point, rows[point.label], found)
    return [point for point, _ in systems]


def _unnamed(code: Coder) -> Callable[[str, np.ndarray], tuple]:
    return lambda name, wav: code(wav)


def _measure(
    point: Point,
    code: Callable[[str, np.ndarray], tuple],
    name: str,
    wav: np.ndarray,
    found: Mapping[str, Measure],
    rows: list[dict[str, float]],
) -> None:
    try:
        decoded, size = code(name, wav)
        values = {key: measure(wav, decoded) for key, measure in found.items()}
    except Exception as error:  # whatever a codec or a measure fails with, the file gets named
        point.failed[name] = f"{type(error).__name__}: {error}"
        return
    rows.append({"bits": 8 * size, "seconds": len(wav) / SAMPLE_RATE, **values})


def _summarise(point: Point, rows: list[dict[str, float]], names: Mapping[str, Measure]) -> None:
    if rows:
        seconds = sum(row["seconds"] for row in rows)
        point.bps = round(sum(row["bits"] for row in rows) / seconds, 1)
        point.distortions = {
            name: round(statistics.fmean(row[name] for row in rows), 4) for name in names
        }


def table(points: Sequence[Point]) -> list[str]:
    """Formats the points as a Markdown table, with a line for each system that is missing."""
    names = next((list(point.distortions) for point in points if point.distortions), [])
    lines = [f"| system | bit/s | {' | '.join(names)} |", "|---|" + "---:|" * (len(names) + 1)]
    for point in sorted(points, key=lambda point: point.bps):
        if point.distortions:
            values = " | ".join(f"{point.distortions[name]:.3f}" for name in names)
            lines.append(f"| {point.label} | {point.bps:.0f} | {values} |")
    lines += [f"{point.label} left out: {point.missing}" for point in points if point.missing]
    for point in points:
        lines += [f"{point.label} failed on {name}: {why}" for name, why in point.failed.items()]
    return lines


def plot(points: Sequence[Point], path: str | Path) -> None:
    """Draws each measure against bit/s into an image."""
    drawn = [point for point in points if point.distortions]
    names = list(drawn[0].distortions) if drawn else []
    figure = new_figure(4.5 * max(len(names), 1), 4, layout="constrained")
    for axis, name in zip(np.ravel(figure.subplots(1, max(len(names), 1))), names, strict=False):
        for family in dict.fromkeys(point.family for point in drawn):
            curve = sorted((p.bps, p.distortions[name]) for p in drawn if p.family == family)
            axis.plot(*zip(*curve, strict=True), "o-", label=family)
        axis.set(xscale="log", xlabel="bit/s", title=name)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    save_figure(figure, path)
