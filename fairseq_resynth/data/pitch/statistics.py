"""F0 statistics of speakers by name (`speakers.json`), and normalization with them."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.data.storage.messages import first_names

# Hz. A smaller standard deviation comes from a handful of frames, and dividing by it gives huge values.
STD_FLOOR = 1.0
F0Entry = dict[str, float]


class SpeakerStatistics:
    """F0 mean and standard deviation over voiced frames, of each speaker and of all speakers together.

    `speakers` are {name: {"f0_mean", "f0_std", "log_f0_mean", "log_f0_std", "num_voiced"}}, the first two in
    Hz, the next two, which older files lack, of the natural logarithm of Hz; `overall` is one such entry.
    """

    def __init__(self, speakers: dict[str, dict[str, float]], overall: dict[str, float]):
        self.speakers = speakers
        self.overall = overall

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SpeakerStatistics":
        """The content of `speakers.json`. Raises ValueError if a key is missing or not a number."""
        try:
            for entry in (*values["speakers"].values(), values["global"]):
                mean, std = entry["f0_mean"], entry["f0_std"]
                if not (0 <= mean + 0.0 < math.inf and 0 <= std + 0.0 < math.inf):
                    raise ValueError(f"finite Hz: f0_mean is {mean}, f0_std {std}")
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"speaker statistics lack {error}, expected "
                '{"speakers": {NAME: {"f0_mean", "f0_std", "num_voiced"}}, "global": {…}}'
            ) from error
        return cls(values["speakers"], values["global"])

    def to_dict(self) -> dict[str, Any]:
        """The content of `speakers.json`."""
        return {"speakers": self.speakers, "global": self.overall}

    @classmethod
    def load(cls, path: str | Path) -> "SpeakerStatistics":
        """Reads `speakers.json`. Raises FileNotFoundError if there is none, ValueError if it is malformed."""
        values = read_json(path, f"Make it with `resynth f0 {Path(path).parent}`.")
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes `speakers.json` atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def from_frames(cls, rows: Iterable[tuple[str, np.ndarray]]) -> "SpeakerStatistics":
        """The statistics over voiced frames of utterances, each (speaker, (N,) F0 in Hz, 0 = unvoiced). A
        speaker without a voiced frame gets those of all. Raises ValueError without any voiced frame."""
        sums: dict[str, np.ndarray] = {}
        for name, f0 in rows:
            voiced = np.asarray(f0, dtype=np.float64)
            voiced = voiced[voiced > 0]
            logs = np.log(voiced)
            powers = (voiced, np.square(voiced), logs, np.square(logs))
            sums[name] = sums.get(name, 0) + np.array([len(voiced), *map(np.sum, powers)])
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
        """The statistics of a speaker, or of all for None. Raises ValueError if the speaker is unknown."""
        if name is None:
            return self.overall
        if name in self.speakers:
            return self.speakers[name]
        known = first_names(sorted(self.speakers))
        raise ValueError(f"unknown speaker {name!r}; the F0 statistics have {known}")

    def _pair(self, name: str | None) -> tuple[float, float]:
        entry = self.entry(name)
        return entry["f0_mean"], max(entry["f0_std"], STD_FLOOR)

    def normalize(self, f0: np.ndarray, name: str | None) -> np.ndarray:
        """The float32 z-score of Hz by the statistics of a speaker, or of all for None; unvoiced frames stay
        0. Raises ValueError if the speaker is unknown."""
        mean, std = self._pair(name)
        f0 = np.asarray(f0, dtype=np.float32)
        return np.where(f0 > 0, (f0 - np.float32(mean)) / np.float32(std), np.float32(0))

    def denormalize(self, f0: np.ndarray, name: str | None) -> np.ndarray:
        """Inverse of `normalize`: float32 Hz, at least 1 where voiced; 0 stays unvoiced."""
        mean, std = self._pair(name)
        f0 = np.asarray(f0, dtype=np.float32)
        hertz = np.maximum(f0 * np.float32(std) + np.float32(mean), np.float32(1))
        return np.where(f0 != 0, hertz, np.float32(0))

    def convert(self, f0: np.ndarray, source: str | None, target: str | None) -> np.ndarray:
        """Maps F0 in Hz from the statistics of one speaker to those of another; unvoiced frames stay 0."""
        f0 = np.asarray(f0, dtype=np.float32)
        moved = self.denormalize(self.normalize(f0, source), target)
        # A voiced frame at the mean is 0 when normalized, like an unvoiced one; its target is the mean.
        at_mean = (f0 > 0) & (moved == 0)
        return np.where(at_mean, np.float32(self._pair(target)[0]), moved)


def _entry(moments: np.ndarray) -> F0Entry:
    count, *sums = (float(value) for value in moments)
    entry = {}
    for prefix, (first, second) in (("", sums[:2]), ("log_", sums[2:])):
        entry[f"{prefix}f0_mean"] = mean = first / count
        entry[f"{prefix}f0_std"] = float(np.sqrt(max(second / count - mean**2, 0.0)))
    return {**entry, "num_voiced": int(count)}
