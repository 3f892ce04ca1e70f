"""Disentanglement: whether a change of voice, pitch or rhythm leaves the other properties unchanged.

After Tables 1 and 2 of Polyak et al. (2021): a speaker encoder measures the voice, an F0 tracker the
pitch, and the content encoder, applied to the generated speech, the content.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.conversion.convert import Controls, Converted, convert
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.speaker_vectors import DESCRIPTION, parse_vectors
from fairseq_resynth.data.storage.files import read_object
from fairseq_resynth.data.storage.messages import first_names
from fairseq_resynth.encoders.speaker import load_encoder
from fairseq_resynth.measures.statistics import equal_error_rate
from fairseq_resynth.resynthesizer import Resynthesizer

SHIFT_TOLERANCE = 0.5  # semitones
RATE_TOLERANCE = 0.01
FLAT_RATIO = 0.5  # standard deviation of F0, flattened to plain
UNITS_TOLERANCE = 0.1  # loss of the units' agreement
SIMILARITY_TOLERANCE = 0.1  # loss of the cosine with the own voice


def unit_agreement(units: np.ndarray, again: np.ndarray) -> float:
    """The share of frames, in [0, 1], with the same unit, over the frames that both have."""
    frames = min(len(units), len(again))
    return float(np.mean(units[:frames] == again[:frames])) if frames else float("nan")


def f0_deviation(f0: np.ndarray) -> float:
    """Standard deviation in semitones over the voiced frames of (N,) Hz; NaN without any."""
    voiced = f0[f0 > 0]
    return float(np.std(12 * np.log2(voiced))) if len(voiced) else float("nan")


def f0_shift(f0: np.ndarray, shifted: np.ndarray) -> float:
    """Median difference in semitones over frames voiced in both tracks; NaN without any."""
    frames = min(len(f0), len(shifted))
    one, other = f0[:frames], shifted[:frames]
    both = (one > 0) & (other > 0)
    return float(np.median(12 * np.log2(other[both] / one[both]))) if both.any() else float("nan")


class DisentanglementTest:
    """The measurement of one bundle, utterance by utterance.

    `means` are the (D,) mean vectors of real speech that enroll the speakers, `embed` is the speaker encoder,
    (T,) samples to (D,). `same` are groups of names that are one person, between whom conversions are not
    measured. With `content`, generated speech is encoded into units again and compared. Raises ValueError if
    `same` has other names.
    """

    def __init__(
        self,
        system: Resynthesizer,
        means: Mapping[str, np.ndarray],
        embed: Callable[[np.ndarray], np.ndarray],
        same: Sequence[Sequence[str]] = (),
        content: bool = True,
    ):
        self.system, self.means, self.embed, self.content = system, dict(means), embed, content
        if unknown := sorted({name for group in same for name in group} - set(means)):
            raise ValueError(
                f"--same names {first_names(unknown)}; the speakers are {first_names(sorted(means))}"
            )
        self.person = {name: name for name in means}
        for group in same:
            self.person |= dict.fromkeys(group, group[0])
        self.figures: dict[str, list[float]] = {}  # one value per utterance
        self.targets: list[float] = []  # cosines of conversions with their target speaker
        self.others: list[float] = []  # and with every other speaker

    def _note(self, **figures: float) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(float(value))

    def add(self, wav: np.ndarray, source: str) -> None:
        """Measures one real utterance, (T,) at 16 kHz, of a speaker that the model knows."""
        for target in self.means:
            if self.person[target] != self.person[source]:
                self._convert(wav, source, target)
        if self.system.pitch.exists:
            self._control(wav, source)

    def _convert(self, wav: np.ndarray, source: str, target: str) -> None:
        done = convert(self.system, wav, target, source)
        vector = self.embed(done.wav)
        scores = {name: float(mean @ vector) for name, mean in self.means.items()}
        person = self.person[target]
        self.targets.append(scores[target])
        self.others += [score for name, score in scores.items() if self.person[name] != person]
        self._note(
            similarity_to_target=scores[target],
            similarity_to_source=scores[source],
            target_nearer=scores[target] > scores[source],
        )
        self._compare_units(units_converted=done)

    def _compare_units(self, **spoken: Converted) -> None:
        if self.content:
            for name, done in spoken.items():
                again = self.system.units(done.wav)
                self._note(**{name: unit_agreement(done.speech.units, again)})

    def _control(self, wav: np.ndarray, source: str) -> None:
        controls = {}, {"pitch": "flatten"}, {"pitch": "shift=+3st"}, {"rate": 0.8}
        plain, flat, up, slow = (
            convert(self.system, wav, source, source, Controls(**changed)) for changed in controls
        )
        f0, flat_f0, up_f0 = (self.system.pitch.extract(done.wav) for done in (plain, flat, up))
        self._note(
            deviation=f0_deviation(f0),
            deviation_flat=f0_deviation(flat_f0),
            shift=f0_shift(f0, up_f0),
            rate_length=len(slow.wav) / len(plain.wav),
            similarity=self.means[source] @ self.embed(plain.wav),
            similarity_shifted=self.means[source] @ self.embed(up.wav),
        )
        self._compare_units(units=plain, units_flat=flat, units_shifted=up)

    def result(self) -> dict[str, Any]:
        """`figures` by name, and `checks`: statement -> whether it holds. Raises ValueError if nothing was
        measured."""
        if not self.figures:
            raise ValueError("nothing to measure: fewer than two persons, and no pitch stream")
        figures = {name: float(np.nanmean(values)) for name, values in self.figures.items()}
        if self.targets:
            figures["eer"] = equal_error_rate(self.targets, self.others)
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
    flat = figures["deviation_flat"] < FLAT_RATIO * figures["deviation"]
    shift, length = figures["shift"] - 3, figures["rate_length"] - 1.25
    checks[f"flatten leaves less than {FLAT_RATIO:.0%} of the F0's standard deviation"] = flat
    checks[f"a shift of 3 semitones is 3 within {SHIFT_TOLERANCE}"] = abs(shift) <= SHIFT_TOLERANCE
    checks["a shift of 3 semitones keeps the voice"] = figures["similarity_shifted"] >= voice
    if "units" in figures:
        units = figures["units"] - UNITS_TOLERANCE
        checks["flatten keeps the units"] = figures["units_flat"] >= units
        checks["a shift of 3 semitones keeps the units"] = figures["units_shifted"] >= units
    checks["rate 0.8 makes speech 1.25 times as long"] = abs(length) <= RATE_TOLERANCE
    return checks


def measure_bundle(
    system: Resynthesizer,
    data: str | Path,
    split: str = "test",
    limit: int = 0,
    same: Sequence[Sequence[str]] = (),
    progress: Callable[[Any], Any] = iter,
) -> dict[str, Any]:
    """Measures a bundle on the first `limit` recordings of a split, or all with 0.

    The data directory must have `speaker_vectors.json`, and the model must know the speakers of the split;
    otherwise FileNotFoundError or ValueError is raised. `progress` wraps the iteration over recordings; for
    `same`, see `DisentanglementTest`.
    """
    data = Path(data)
    made_by = f"Make it with `resynth speakers {data}`."
    found = read_object(data / DESCRIPTION, made_by, means=dict, speaker_dim=int, encoder=str)
    manifest = read_manifest(data / f"{split}.tsv")
    lines = read_lines(data / f"{split}.speaker", len(manifest), "resynth manifest")
    names = list(map(str.strip, lines))
    means = parse_vectors(found["means"], found["speaker_dim"])
    for name in sorted(set(names)):
        system.streams.speaker_index(name)
    known = {name: mean for name, mean in means.items() if name in system.streams.speakers}
    test = DisentanglementTest(system, known, load_encoder(found["encoder"]).embed, same)
    for row in progress(range(min(len(manifest), limit or len(manifest)))):
        test.add(read_audio(manifest.path(row)), names[row])
    return test.result()
