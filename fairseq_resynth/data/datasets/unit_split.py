"""The streams of one split of a data directory, checked against each other, without fairseq."""

from pathlib import Path

import numpy as np

from fairseq_resynth.data.datasets.conditioning import (
    F0Tracks,
    SpeakerTable,
    SpeakerVectors,
    known_rows,
)
from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.data.units import IntegerRows, do_not_fit, read_integer_rows


class UnitSplit:
    """The streams of a split that a model needs; those that it does not need are None.

    `mean_rate` is the probability of the speaker's mean vector instead of the utterance's own; None: not
    training. Raises FileNotFoundError if a file is missing, and ValueError if files contradict each other.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        streams: StreamSpec,
        mean_rate: float | None = None,
        seed: int = 1,
    ):
        data = Path(data)
        self.split = split
        self.streams = streams
        streams.check_same_encoders(data)
        self.manifest = read_manifest(data / f"{split}.tsv")
        rows = len(self.manifest)
        self.units = read_integer_rows(data / f"{split}.units", rows, "resynth quantize")
        self._check_units(data / f"{split}.units")
        self.f0_codes = self.f0 = None
        if streams.num_f0_codes:
            self.f0_codes = read_integer_rows(data / f"{split}.f0", rows, "resynth quantize-f0")
            self._check_f0_codes(data / f"{split}.f0", self.f0_codes)
        if streams.f0_channels:
            self.f0 = F0Tracks(data, split, streams, self.manifest)
        self.speakers: SpeakerTable | SpeakerVectors | None = None
        if streams.speaker_dim:
            self.speakers = SpeakerVectors(data, split, streams, rows, mean_rate, seed)
        elif streams.speakers:
            self.speakers = SpeakerTable(data, split, streams, rows)
        self.tokens = {
            name: known_rows(data / f"{split}.{name}", rows, known, name)
            for name, known in streams.tokens.items()
        }

    def utterance(self, row: int) -> Utterance:
        """The streams of one row, as long as its units, with the name and the length of its recording."""
        return Utterance(
            units=self.units[row],
            f0_codes=None if self.f0_codes is None else self.f0_codes[row],
            speaker=None if self.speakers is None else self.speakers.voice(row),
            num_samples=int(self.manifest.num_samples[row]),
            f0=None if self.f0 is None else self.f0[row],
            tokens={
                name: self.streams.tokens[name][rows[row]] for name, rows in self.tokens.items()
            },
            name=self.manifest.name(row),
        )

    def _check_units(self, path: Path) -> None:
        if self.units.maximum >= self.streams.num_units:
            row = next(i for i, units in enumerate(self.units) if units.max() == self.units.maximum)
            raise ValueError(
                f"{path}:{row + 1}: unit {self.units.maximum} is outside the table of "
                f"{self.streams.num_units} units (0 to {self.streams.num_units - 1})."
            )
        hop = self.streams.unit_hop
        wrong = np.flatnonzero(do_not_fit(self.units.lengths, self.manifest.num_samples, hop))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{path}:{row + 1}: {self.units.lengths[row]} units of {hop} samples do not fit the "
                f"{self.manifest.num_samples[row]} samples of {self.manifest.paths[row]} "
                f"({len(wrong)} such rows). Make the units again with `resynth quantize`."
            )

    def _check_f0_codes(self, path: Path, codes: IntegerRows) -> None:
        hop, unit_hop = self.streams.f0_code_hop, self.streams.unit_hop
        needed = -(-self.units.lengths * unit_hop // hop)
        short = np.flatnonzero(codes.lengths < needed)
        if len(short):
            row = int(short[0])
            raise ValueError(
                f"{path}:{row + 1}: {codes.lengths[row]} pitch codes of {hop} samples, and "
                f"{self.units.lengths[row]} units of {unit_hop} need {needed[row]} "
                f"({len(short)} such rows). Make them again with `resynth quantize-f0`."
            )
        if codes.maximum >= self.streams.num_f0_codes:
            raise ValueError(
                f"{path}: pitch code {codes.maximum} is outside the table of "
                f"{self.streams.num_f0_codes} codes. Make them again with `resynth quantize-f0`."
            )
