"""Rate against distortion of bundles and other codecs, on the same utterances in one run."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import fit_length, resample
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.evaluation.codecs.baselines import Baseline, Coded
from fairseq_resynth.evaluation.metrics.packages import importable
from fairseq_resynth.evaluation.runs.pairing import read_data, read_folder
from fairseq_resynth.measures.figures import new_figure, save_figure, style_axes
from fairseq_resynth.measures.spectral import mel_cepstral_distortion, mel_l1_distance

DEFAULT = "opus:6,opus:9,opus:12,codec2:700,codec2:1200,codec2:1600,codec2:2400,speex:4"


@dataclass
class Point:
    """One system at one rate."""

    family: str  # points of one family are joined in the plot
    label: str
    # bit/s over all utterances; headers of bundles' files count, those of other codecs do not
    bps: float = 0.0
    # name of the measure -> mean over the utterances
    distortions: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # name of the utterance -> reason
    missing: str = ""  # what to install, when the system could not run at all


def list_recordings(
    paths: Sequence[str | Path], splits: Sequence[str] | None = None
) -> tuple[list[tuple[str, Path]], dict[str, str]]:
    """(name, path) of each recording of data directories or folders of audio, and known speakers. `splits`
    are those of the data directories, None: all. Raises FileNotFoundError or ValueError if there is no such
    folder, or no audio in it."""
    listed, speakers = [], {}
    for folder in map(Path, paths):
        if any(folder.glob("*.tsv")):
            parts = {f"{split}/": read_data(folder, split) for split in read_splits(folder, splits)}
        else:
            parts = {"": read_folder(folder, without=folder / "out")}
        for prefix, collection in parts.items():
            listed += [(prefix + name, path) for name, path in collection.files.items()]
            speakers |= {prefix + name: who for name, who in collection.speakers.items()}
    return listed, speakers


def distortion_measures() -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    """Mel L1 and mel-cepstral distortion, and STOI and PESQ if they are installed. None of them is fair to
    a codec that does not keep the waveform; word error rates, which are, come from `resynth evaluate`."""
    found: dict[str, Any] = {"mel_l1": mel_l1_distance, "mcd": mel_cepstral_distortion}
    if importable("pystoi"):
        from pystoi import stoi

        found["stoi"] = lambda reference, other: float(stoi(reference, other, SAMPLE_RATE))
    if importable("pesq"):
        from pesq import pesq

        found["pesq"] = lambda reference, other: float(pesq(SAMPLE_RATE, reference, other, "wb"))
    return found


def known_voice(codec: SpeechCodec, speaker: Any) -> tuple[str | None, str | None]:
    """The speaker to encode, None for one that the bundle does not know; and the voice to decode in, None if
    it is that speaker's or the bundle knows none."""
    known = codec.resynthesizer.streams.speakers
    if speaker in known:
        return speaker, None
    return None, known[0] if known else None


def _code(system: SpeechCodec | Baseline, wav: np.ndarray, speaker: str | None) -> Coded:
    if isinstance(system, Baseline):
        return system.code(wav)
    speaker, voice = known_voice(system, speaker)
    decoded = system.decode(data := system.encode(wav, speaker), voice)
    return Coded(fit_length(decoded, len(wav)), len(data), len(data))


def measure_codecs(
    utterances: Sequence[tuple[str, Path]],
    codecs: Mapping[str, SpeechCodec],
    baselines: Sequence[Baseline],
    speakers: Mapping[str, str] | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> list[Point]:
    """Codes every utterance, (name, audio file), with every bundle and baseline, and measures it. `codecs`
    maps labels to bundles, `speakers` names to speakers. `progress` is called after each utterance and
    system."""
    systems: list[tuple[Point, SpeechCodec | Baseline]] = [
        (Point("resynth", label), codec) for label, codec in codecs.items()
    ]
    for one in baselines:
        systems.append((Point(one.family, one.label, missing=one.missing), one))
    measures = distortion_measures()
    rows: dict[str, list[dict[str, float]]] = {point.label: [] for point, _ in systems}
    for name, path in utterances:
        wav = resample(*load_any_audio(path))
        for point, system in systems:
            if not point.missing:
                try:
                    coded = _code(system, wav, (speakers or {}).get(name))
                    values = {key: measure(wav, coded.wav) for key, measure in measures.items()}
                    rate = {"bits": 8 * coded.packet_bytes, "seconds": len(wav) / SAMPLE_RATE}
                    rows[point.label].append(rate | values)
                except Exception as error:  # whatever a codec or a measure raises
                    point.failed[name] = f"{type(error).__name__}: {error}"
            progress()
    for point, _ in systems:
        if own := rows[point.label]:
            point.bps = round(sum(r["bits"] for r in own) / sum(r["seconds"] for r in own), 1)
            point.distortions = {
                name: round(statistics.fmean(row[name] for row in own), 4) for name in measures
            }
    return [point for point, _ in systems]


def table(points: Sequence[Point]) -> list[str]:
    """The points as a Markdown table, with one line for each system or file that is missing."""
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
    for axes, name in zip(np.ravel(figure.subplots(1, max(len(names), 1))), names, strict=False):
        for family in dict.fromkeys(point.family for point in drawn):
            curve = sorted((p.bps, p.distortions[name]) for p in drawn if p.family == family)
            axes.plot(*zip(*curve, strict=True), "o-", label=family)
        style_axes(axes)
        axes.set(xscale="log", xlabel="bit/s", title=name)
        axes.legend(fontsize="small")
    save_figure(figure, path)
