"""Speakers' F0 statistics, by name: `speakers.json`, and normalisation with them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.storage.files import read_json, write_json

# Hz. A deviation below it comes of a handful of frames and would blow up what is divided by it.
STD_FLOOR = 1.0
F0Entry = dict[str, float]


class SpeakerStatistics:
    """F0 mean and standard deviation over voiced frames, in Hz, of each speaker and of all together.

    Args:
        speakers: {name: {"f0_mean", "f0_std", "log_f0_mean", "log_f0_std", "num_voiced"}}, of the natural
            logarithm of Hz the two in the middle, which older files lack.
        overall: the same of all speakers together.
    """

    def __init__(self, speakers: dict[str, dict[str, float]], overall: dict[str, float]):
        self.speakers = speakers
        self.overall = overall

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SpeakerStatistics":
        """Takes what `speakers.json` holds.

        Raises:
            ValueError: not of that form.
        """
        try:
            for entry in (*values["speakers"].values(), values["global"]):
                float(entry["f0_mean"]), float(entry["f0_std"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"speaker statistics lack {error}, expected "
                '{"speakers": {NAME: {"f0_mean", "f0_std", "num_voiced"}}, "global": {…}}'
            ) from error
        return cls(values["speakers"], values["global"])

    def to_dict(self) -> dict[str, Any]:
        """Returns what `speakers.json` holds."""
        return {"speakers": self.speakers, "global": self.overall}

    @classmethod
    def load(cls, path: str | Path) -> "SpeakerStatistics":
        """Reads `speakers.json`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not of that form.
        """
        path = Path(path)
        values = read_json(path, f"Make it with `resynth f0 {path.parent}`.")
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes `speakers.json` atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def from_frames(cls, rows: Iterable[tuple[str, np.ndarray]]) -> "SpeakerStatistics":
        """Counts over (name, (N,) F0 in Hz) of utterances, one at a time; unvoiced frames do not count.

        A speaker without any voiced frame gets the global pair.

        Raises:
            ValueError: no utterance has a voiced frame.
        """
        sums: dict[str, np.ndarray] = {}
        for name, f0 in rows:
            voiced = np.asarray(f0, dtype=np.float64)
            voiced = voiced[voiced > 0]
            logs = np.log(voiced)
            sums_of = (voiced, np.square(voiced), logs, np.square(logs))
            moments = np.array([len(voiced), *[values.sum() for values in sums_of]])
            sums[name] = sums.get(name, 0) + moments
        total = sum(sums.values(), np.zeros(5))
        if not total[0]:
            raise ValueError(
                "no voiced frame in any utterance: is it speech, and is the F0 range right?"
            )
        overall = _entry(total)
        speakers = {
            name: _entry(sums[name]) if sums[name][0] else {**overall, "num_voiced": 0}
            for name in sorted(sums)
        }
        return cls(speakers, overall)

    def entry(self, name: str | None) -> F0Entry:
        """Returns a speaker's statistics; None: those of all.

        Raises:
            ValueError: unknown speaker, with those there are.
        """
        if name is None:
            return self.overall
        if name in self.speakers:
            return self.speakers[name]
        known = ", ".join(sorted(self.speakers)[:20]) + (" …" if len(self.speakers) > 20 else "")
        raise ValueError(f"unknown speaker {name!r}; the F0 statistics have {known}")

    def _pair(self, name: str | None) -> tuple[float, float]:
        entry = self.entry(name)
        return entry["f0_mean"], max(entry["f0_std"], STD_FLOOR)

    def normalize(self, f0: np.ndarray, name: str | None) -> np.ndarray:
        """Subtracts the speaker's mean and divides by the deviation on voiced frames; unvoiced stay 0.

        Args:
            f0: (…) Hz, 0 = unvoiced.
            name: the speaker; None: the global pair.

        Returns:
            (…) float32.

        Raises:
            ValueError: unknown speaker, with those there are.
        """
        mean, std = self._pair(name)
        f0 = np.asarray(f0, dtype=np.float32)
        return np.where(f0 > 0, (f0 - np.float32(mean)) / np.float32(std), np.float32(0))

    def denormalize(self, f0: np.ndarray, name: str | None) -> np.ndarray:
        """Inverse of `normalize`: 0 is unvoiced and stays 0; (…) float32 Hz, never below 1 where voiced."""
        mean, std = self._pair(name)
        f0 = np.asarray(f0, dtype=np.float32)
        hertz = np.maximum(f0 * np.float32(std) + np.float32(mean), np.float32(1))
        return np.where(f0 != 0, hertz, np.float32(0))

    def convert(self, f0: np.ndarray, source: str | None, target: str | None) -> np.ndarray:
        """Moves F0 in Hz from one speaker's statistics to another's; unvoiced frames stay 0."""
        f0 = np.asarray(f0, dtype=np.float32)
        moved = self.denormalize(self.normalize(f0, source), target)
        # A voiced frame at the very mean is 0 when normalised, as an unvoiced one is: it goes to the mean.
        at_mean = (f0 > 0) & (moved == 0)
        return np.where(at_mean, np.float32(self._pair(target)[0]), moved)


def _entry(moments: np.ndarray) -> F0Entry:
    count, *sums = (float(value) for value in moments)

    def mean_and_std(first: float, second: float) -> tuple[float, float]:
        mean = first / count
        return mean, float(np.sqrt(max(second / count - mean**2, 0.0)))

    (mean, std), (log_mean, log_std) = mean_and_std(*sums[:2]), mean_and_std(*sums[2:])
    return {
        "f0_mean": mean,
        "f0_std": std,
        "log_f0_mean": log_mean,
        "log_f0_std": log_std,
        "num_voiced": int(count),
    }
