"""Whether one thing changes and the rest stays: voice, melody, pitch and rhythm, each measured on the others.

After Tables 1 and 2 of Polyak et al. (2021): the speaker encoder judges the voice, the F0 tracker the pitch,
and the units' own encoder, applied to what was generated, the content.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.conversion.convert import Controls, Converted, convert
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.speaker_vectors import DESCRIPTION, parse_vectors
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.encoders.speaker import load_encoder
from fairseq_resynth.measures.statistics import equal_error_rate
from fairseq_resynth.resynthesizer import Resynthesizer

SHIFT_TOLERANCE = 0.5  # semitones
RATE_TOLERANCE = 0.01
FLAT_RATIO = 0.5  # of the F0's deviation
UNITS_TOLERANCE = 0.1  # of the units' agreement
SIMILARITY_TOLERANCE = 0.1  # of the cosine with the own voice


@dataclass
class Trials:
    """What is gathered over utterances: cosines of conversions, and figures of each control."""

    targets: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    to_source: list[float] = field(default_factory=list)
    nearer: list[bool] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Adds a figure of an utterance."""
        for name, value in values.items():
            self.figures.setdefault(name, []).append(float(value))


def unit_agreement(units: np.ndarray, again: np.ndarray) -> float:
    """Returns the share of frames, in [0, 1], whose unit comes back; a surplus of frames does not count."""
    frames = min(len(units), len(again))
    return float(np.mean(units[:frames] == again[:frames])) if frames else float("nan")


def f0_deviation(f0: np.ndarray) -> float:
    """Returns the standard deviation over voiced frames of (N,) Hz in semitones; NaN without any."""
    voiced = f0[f0 > 0]
    return float(np.std(12 * np.log2(voiced))) if len(voiced) else float("nan")


def f0_shift(f0: np.ndarray, shifted: np.ndarray) -> float:
    """Returns the median step in semitones over frames voiced in both of (N,) Hz; NaN without any."""
    frames = min(len(f0), len(shifted))
    one, other = f0[:frames], shifted[:frames]
    both = (one > 0) & (other > 0)
    return float(np.median(12 * np.log2(other[both] / one[both]))) if both.any() else float("nan")


class DisentanglementTest:
    """Measures one bundle.

    Args:
        system: the models.
        means: {speaker: (D,) mean vector of real speech}, the enrolment.
        embed: the speaker encoder, (T,) samples to (D,).
        same: groups of names that are one person, between whom nothing is to be told apart.
        content: whether what was generated is brought back to units and compared.
    """

    def __init__(
        self,
        system: Resynthesizer,
        means: Mapping[str, np.ndarray],
        embed: Callable[[np.ndarray], np.ndarray],
        same: Sequence[Sequence[str]] = (),
        content: bool = True,
    ):
        self.system, self.means, self.embed = system, dict(means), embed
        self.content = content
        self.person = {name: name for name in means}
        for group in same:
            self.person.update(dict.fromkeys(group, group[0]))
        self.trials = Trials()

    def add(self, wav: np.ndarray, source: str) -> None:
        """Takes one real utterance, (T,) at 16 kHz, of a speaker of the model."""
        for target in self.means:
            if self.person[target] != self.person[source]:
                self._convert(wav, source, target)
        if self.system.pitch.exists:
            self._controls(wav, source)

    def _convert(self, wav: np.ndarray, source: str, target: str) -> None:
        done = convert(self.system, wav, target, source)
        vector = self.embed(done.wav)
        scores = {name: float(mean @ vector) for name, mean in self.means.items()}
        self.trials.targets.append(scores[target])
        self.trials.to_source.append(scores[source])
        self.trials.nearer.append(scores[target] > scores[source])
        self.trials.others += [
            score for name, score in scores.items() if self.person[name] != self.person[target]
        ]
        self._compare_units(units_converted=done)

    def _compare_units(self, **spoken: Converted) -> None:
        if self.content:
            agreed = {
                name: unit_agreement(done.speech.units, self.system.units(done.wav))
                for name, done in spoken.items()
            }
            self.trials.add(**agreed)

    def _say(self, wav: np.ndarray, source: str, **controls: Any) -> tuple:
        done = convert(self.system, wav, source, source, Controls(**controls))
        return done, self.system.pitch.extract(done.wav)

    def _controls(self, wav: np.ndarray, source: str) -> None:
        plain, plain_f0 = self._say(wav, source)
        flat, flat_f0 = self._say(wav, source, pitch="flatten")
        up, up_f0 = self._say(wav, source, pitch="shift=+3st")
        slow, _ = self._say(wav, source, rate=0.8)
        own = self.means[source]
        self.trials.add(
            deviation=f0_deviation(plain_f0),
            deviation_flat=f0_deviation(flat_f0),
            shift=f0_shift(plain_f0, up_f0),
            rate_length=len(slow.wav) / len(plain.wav),
            similarity=own @ self.embed(plain.wav),
            similarity_shifted=own @ self.embed(up.wav),
        )
        self._compare_units(units=plain, units_flat=flat, units_shifted=up)

    def result(self) -> dict[str, Any]:
        """Returns `figures` by name, and `checks`: what must hold, and whether it does.

        Raises:
            ValueError: nothing was measured.
        """
        trials = self.trials
        if not trials.targets and not trials.figures:
            raise ValueError("nothing to measure: fewer than two persons, and no pitch stream")
        figures = {name: float(np.nanmean(values)) for name, values in trials.figures.items()}
        if trials.targets:
            figures["similarity_to_target"] = float(np.mean(trials.targets))
            figures["similarity_to_source"] = float(np.mean(trials.to_source))
            figures["target_nearer"] = float(np.mean(trials.nearer))
            figures["eer"] = equal_error_rate(trials.targets, trials.others)
        return {"figures": figures, "checks": _checks(figures)}


def _checks(figures: Mapping[str, float]) -> dict[str, bool]:
    checks = {}
    if "eer" in figures:
        checks["after conversion the target is nearer than the source"] = (
            figures["similarity_to_target"] > figures["similarity_to_source"]
            and figures["target_nearer"] > 0.5
        )
    if "shift" not in figures:
        return checks
    voice = figures["similarity"] - SIMILARITY_TOLERANCE
    checks[f"flatten leaves under {FLAT_RATIO:.0%} of the F0's deviation"] = (
        figures["deviation_flat"] < FLAT_RATIO * figures["deviation"]
    )
    checks[f"+3 semitones are 3 within {SHIFT_TOLERANCE}"] = (
        abs(figures["shift"] - 3) <= SHIFT_TOLERANCE
    )
    checks["+3 semitones leave the voice"] = figures["similarity_shifted"] >= voice
    if "units" in figures:
        units = figures["units"] - UNITS_TOLERANCE
        checks["flatten leaves the units"] = figures["units_flat"] >= units
        checks["+3 semitones leave the units"] = figures["units_shifted"] >= units
    checks["rate 0.8 is 1.25 times as long"] = abs(figures["rate_length"] - 1.25) <= RATE_TOLERANCE
    return checks


def measure_bundle(
    system: Resynthesizer,
    data: str | Path,
    split: str = "test",
    limit: int = 0,
    same: Sequence[Sequence[str]] = (),
    progress: Callable[[Any], Any] = iter,
) -> dict[str, Any]:
    """Measures a bundle on a split's recordings, whose speakers the model knows.

    Args:
        system: the models.
        data: data directory with `speaker_vectors.json`.
        split: whose recordings.
        limit: only so many of them; 0: all.
        same: see `DisentanglementTest`.
        progress: wraps what is gone through.

    Raises:
        FileNotFoundError, ValueError: no speaker vectors, or speakers that the model does not know.
    """
    data = Path(data)
    found = read_json(data / DESCRIPTION, f"Make it with `resynth speakers {data}`.")
    manifest = read_manifest(data / f"{split}.tsv")
    names = read_lines(data / f"{split}.speaker", len(manifest), "resynth manifest")
    means = parse_vectors(found["means"], found["speaker_dim"])
    for name in sorted({line.strip() for line in names}):
        system.streams.speaker_index(name)
    known = {name: mean for name, mean in means.items() if name in system.streams.speakers}
    test = DisentanglementTest(system, known, load_encoder(found["encoder"]).embed, same)
    for row in progress(range(min(len(manifest), limit or len(manifest)))):
        test.add(read_audio(manifest.path(row)), names[row].strip())
    return test.result()
