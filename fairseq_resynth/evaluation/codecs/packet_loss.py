"""Packets under loss: bit rate and quality of the same utterances, whole and in packets that get lost."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.codec.format.packets import OVERHEAD_BYTES
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import fit_length, resample
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.data.streams import Utterance, read_utterances
from fairseq_resynth.evaluation.codecs.rate_distortion import distortion_measures, known_voice
from fairseq_resynth.evaluation.metrics.packages import importable
from fairseq_resynth.evaluation.runs.pairing import read_data
from fairseq_resynth.measures.f0_errors import f0_errors

# Kind of loss -> the mean length of a burst, in packets.
LOSSES, NO_LOSS = {"uniform": 1.0, "bursts": 3.0}, {"no loss": 1.0}
Packets = Sequence[Sequence[bytes]]  # of each utterance


@dataclass
class LossPoint:
    """The utterances under one loss rate."""

    label: str
    bps: float  # bit/s with numbers and checksums, without the framing of a file
    overhead_bps: float = 0.0  # of it numbers and checksums
    lost: float = 0.0  # share of the packets that were lost
    gap: str = ""  # how the lost ones are filled
    distortions: dict[str, float] = field(default_factory=dict)  # name of the measure -> mean


def read_coded(
    paths: Sequence[str | Path], splits: Sequence[str] | None = None
) -> list[tuple[Utterance, Path]]:
    """The streams and the recording of each row of data directories. Raises FileNotFoundError or ValueError
    if a directory has no manifest or no units."""
    found = []
    for folder in map(Path, paths):
        for split in read_splits(folder, splits):
            rows, collection = read_utterances(folder, [split]), read_data(folder, split)
            for row in rows:
                name = Path(row.name).as_posix()
                speaker = collection.speakers.get(name)
                found.append((replace(row, speaker=speaker), collection.files[name]))
    return found


def lost_packets(count: int, rate: float, burst: float, rng: np.random.Generator) -> np.ndarray:
    """(count,) bool: which packets are lost at a `rate` from 0 to 1. `burst` is the mean number of packets
    lost in succession, by a Markov chain of two states (Gilbert 1960); 1: each on its own."""
    draws = rng.random(count)
    if burst <= 1:
        return draws < rate
    lost, states = False, np.zeros(count, bool)
    for place in range(count):
        if place == 0:
            chance = rate
        else:
            chance = 1 - 1 / burst if lost else rate / (burst * max(1 - rate, 1e-9))
        lost = states[place] = draws[place] < chance
    return states


class _Speech:
    """An utterance: speaks what arrives of it, and measures that once."""

    def __init__(self, codec: SpeechCodec, row: Utterance, wav: np.ndarray, measures: dict):
        speaker, self._voice = known_voice(codec, row.speaker)
        self.row = replace(row, speaker=speaker, num_samples=len(wav))
        self.seconds = len(wav) / codec.resynthesizer.streams.sample_rate
        self._codec, self._wav, self._measures = codec, wav, measures
        self._measured: dict[Any, dict[str, float]] = {}

    def whole(self) -> dict[str, float]:
        """The measures of the whole file."""
        if None not in self._measured:
            wav = self._codec.decode(self._codec.pack(self.row), self._voice)
            self._measured[None] = self._measure(wav)
        return self._measured[None]

    def received(self, packets: Sequence[bytes], lost: np.ndarray, gap: str) -> dict[str, float]:
        """The measures of what is spoken without the lost packets."""
        if not lost.any():  # the samples are those of the whole file
            return self.whole()
        key = len(packets), lost.tobytes(), gap
        if key not in self._measured:
            arriving = [data for data, gone in zip(packets, lost, strict=True) if not gone]
            try:
                wav, _ = self._codec.decode_packets(arriving, self._voice, conceal=gap)
            except CodecError:  # nothing arrived; STOI and PESQ fail on digital silence
                wav = np.random.default_rng(0).normal(0, 1e-4, len(self._wav)).astype(np.float32)
            self._measured[key] = self._measure(wav)
        return self._measured[key]

    def _measure(self, wav: np.ndarray) -> dict[str, float]:
        wav = fit_length(wav, len(self._wav))
        return {name: measure(self._wav, wav) for name, measure in self._measures.items()}


def measure_loss(
    codec: SpeechCodec,
    coded: Sequence[tuple[Utterance, Path]],
    lengths: Sequence[float],
    rates: Sequence[float],
    seeds: int = 3,
    gaps: Sequence[str] = ("fade",),
    progress: Callable[[], Any] = lambda: None,
) -> list[LossPoint]:
    """Measures the whole files, and packets of each of the `lengths` in seconds at each loss rate in percent,
    lost on their own and in bursts of 3 on average, over as many seeds. Missing packets are filled in each of
    the ways `gaps`, `fade` or `hold`. `progress` is called after each rate and kind of loss."""
    measures = distortion_measures() | {"ffe": _f0_frame_error}
    speeches = [
        _Speech(codec, row, resample(*load_any_audio(path)), measures) for row, path in coded
    ]
    points = [_whole_files(codec, speeches)]
    for length in lengths:
        packets = [codec.pack_packets(speech.row, length) for speech in speeches]
        for rate in rates:
            for kind, burst in (LOSSES if rate else NO_LOSS).items():
                label = f"packets of {length:g} s, {kind}" + (f" {rate:g} %" if rate else "")
                draws = [_draw(packets, rate, burst, seed) for seed in range(seeds if rate else 1)]
                for gap in gaps if rate else ("",):
                    points.append(_under_loss(label, speeches, packets, draws, gap))
                progress()
    return points


def _whole_files(codec: SpeechCodec, speeches: Sequence[_Speech]) -> LossPoint:
    size = sum(len(codec.pack(speech.row)) for speech in speeches)
    distortions = _mean([speech.whole() for speech in speeches])
    return LossPoint("whole files", _bit_rate(speeches, size), distortions=distortions)


def _draw(packets: Packets, rate: float, burst: float, seed: int) -> list[np.ndarray]:
    """Which packets of each utterance are lost at a rate in percent."""
    rng = np.random.default_rng([seed, round(rate * 100), round(burst)])
    return [lost_packets(len(own), rate / 100, burst, rng) for own in packets]


def _under_loss(
    label: str,
    speeches: Sequence[_Speech],
    packets: Packets,
    draws: Sequence[Sequence[np.ndarray]],
    gap: str,
) -> LossPoint:
    """The packets of each utterance without those that are lost, over all draws."""
    distortions = _mean(
        [
            speech.received(own, lost, gap)
            for draw in draws
            for speech, own, lost in zip(speeches, packets, draw, strict=True)
        ]
    )
    size = _bit_rate(speeches, sum(len(data) for own in packets for data in own))
    overhead = _bit_rate(speeches, OVERHEAD_BYTES * sum(map(len, packets)))
    share = np.mean(np.concatenate([lost for draw in draws for lost in draw]))
    return LossPoint(label, size, overhead, round(float(share), 4), gap, distortions)


def _bit_rate(speeches: Sequence[_Speech], size: int) -> float:
    """Bit/s of so many bytes."""
    return round(8 * size / sum(speech.seconds for speech in speeches), 1)


def _mean(values: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.fmean(v[name] for v in values), 4) for name in values[0]}


def _f0_frame_error(reference: np.ndarray, other: np.ndarray) -> float:
    method = "swift" if importable("swift_f0") else "yaapt"
    return f0_errors(*(extract_f0(wav, method) for wav in (reference, other)))["ffe"]


def table(points: Sequence[LossPoint]) -> list[str]:
    """The points as a Markdown table."""
    names = list(points[0].distortions)
    lines = [
        f"| system | gaps | bit/s | of it overhead | lost | {' | '.join(names)} |",
        "|---|---|" + "---:|" * (len(names) + 3),
    ]
    for point in points:
        values = " | ".join(f"{point.distortions[name]:.3f}" for name in names)
        rates = f"{point.bps:.0f} | {point.overhead_bps:.0f} | {point.lost:.1%}"
        lines.append(f"| {point.label} | {point.gap} | {rates} | {values} |")
    return lines
