"""What to synthesize: the utterances of a data directory, a file of units or a language model's samples."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.datasets.unit_split import UnitSplit
from fairseq_resynth.data.manifest import read_lines
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.data.units import (
    UnitRow,
    read_generated_units,
    read_integer_rows,
    read_unit_file,
)
from fairseq_resynth.inference.decoder import UnitDecoder


@dataclass(frozen=True)
class Job:
    """One file to write: its path in the output folder without suffix, its speech, any recording of it."""

    name: str
    speech: Utterance
    reference: Path | None = None


def read_jobs(source: str | Path, streams: StreamSpec, split: str = "test") -> list[Job]:
    """Reads the utterances of one split of a data directory, or of a file of units.

    A file has one line `1 2 3`, `name|1 2 3` or a dict per utterance; NAME.f0 and NAME.speaker may stand next
    to it. Raises FileNotFoundError or ValueError if a file is missing or malformed, or lacks a stream of the
    model.
    """
    source = Path(source)
    if source.is_dir():
        data = UnitSplit(source, split, streams)
        utterances = map(data.utterance, range(len(data.manifest)))
        return [Job(u.name, u, data.manifest.path(row)) for row, u in enumerate(utterances)]
    rows = read_unit_file(source)
    f0_codes = [None] * len(rows)
    if streams.num_f0_codes and any(row.f0 is None for row in rows):
        f0_codes = _read_f0_codes(source, len(rows))
    speakers = [row.speaker for row in rows]
    if source.with_suffix(".speaker").is_file():
        speakers = read_lines(source.with_suffix(".speaker"), len(rows), "resynth manifest")
    jobs = []
    for row, codes, speaker in zip(rows, f0_codes, speakers, strict=True):
        reference = Path(row.audio) if row.audio and Path(row.audio).is_file() else None
        speech = Utterance(row.units, codes, speaker, len(row.units) * streams.unit_hop)
        speech = replace(speech, style=row.style, **_pitch(row, streams, source))
        jobs.append(Job(_relative(row.label), speech, reference))
    _check_names(jobs, source)
    return jobs


def _relative(name: str) -> str:
    """A name that stays within the output folder."""
    return name.strip("/").replace("..", "_")


def _read_f0_codes(source: Path, rows: int) -> Sequence[np.ndarray]:
    path = source.with_suffix(".f0")
    if not path.is_file():
        raise FileNotFoundError(
            f"the model has a pitch stream, and {path} does not exist: write one line of pitch codes per "
            f"line of {source.name} to it (`resynth quantize-f0` does so for a data directory)."
        )
    return read_integer_rows(path, rows, "resynth quantize-f0")


def _pitch(row: UnitRow, streams: StreamSpec, source: Path) -> dict[str, np.ndarray]:
    """The pitch of a dict line, one value per unit, at the rate of the model's pitch stream."""
    if row.f0 is None or not streams.has_pitch:
        return {}
    hop = F0_HOP if streams.f0_channels else streams.f0_code_hop
    # Each frame of pitch takes the value of the unit in its middle. The hops are compared in samples, because
    # neither needs to divide the other.
    middles = np.arange(-(-len(row.units) * streams.unit_hop // hop)) * hop + hop // 2
    values = row.f0[np.minimum(middles // streams.unit_hop, len(row.units) - 1)]
    if streams.f0_channels:
        return {"f0": values.astype(np.float32)[None]}
    if not np.array_equal(row.f0, np.rint(row.f0)):
        raise ValueError(
            f"{source}: the f0 of {row.label} is continuous, and the model has {streams.num_f0_codes} codes."
        )
    return {"f0_codes": values.astype(np.int64)}


def read_samples(source: str | Path, streams: StreamSpec) -> tuple[list[Job], list[str]]:
    """Reads what a unit language model wrote, for `predict_durations`: jobs, and notes on what was left out.

    The file has lines `name|1 2 3 </s>` or `1 2 3`, or is the output of fairseq-interactive. Raises
    FileNotFoundError or ValueError if it is missing or has no units, or the model has pitch.
    """
    if streams.has_pitch:
        raise ValueError("the model needs pitch, and units without repeats come without it.")
    found = read_generated_units(source)
    jobs = [
        Job(_relative(row.label), Utterance(row.units, None, row.speaker, style=row.style))
        for row in found.rows
    ]
    _check_names(jobs, Path(source))
    notes = [f"{count} times {symbol} left out" for symbol, count in sorted(found.dropped.items())]
    notes += [f"{name}: no unit in it, nothing written" for name in found.empty]
    return jobs, notes


def _check_names(jobs: list[Job], source: Path) -> None:
    first: dict[str, int] = {}
    for number, job in enumerate(jobs, 1):
        if job.name in first:
            raise ValueError(f"{source}:{number}: {job.name} is already on line {first[job.name]}.")
        first[job.name] = number


def predict_durations(jobs: Sequence[Job], decoder: UnitDecoder, rate: float) -> list[Job]:
    """Repeats each unit as often as the duration predictor says, in the voice of each job.

    Arguments and errors as `UnitDecoder.expand`.
    """
    voices = [job.speech.speaker for job in jobs]
    expanded = decoder.expand([job.speech.units for job in jobs], rate, speaker=voices)
    hop = decoder.streams.unit_hop
    return [
        replace(job, speech=replace(job.speech, units=units, num_samples=len(units) * hop))
        for job, units in zip(jobs, expanded, strict=True)
    ]


def in_other_voices(
    jobs: Sequence[Job], streams: StreamSpec, names: Sequence[str], random_voices: int, seed: int
) -> list[Job]:
    """One job for each utterance and each voice that is not its own.

    `names` are the voices, all of the model's if empty; `random_voices` of them are drawn for each utterance,
    0 for all. Raises ValueError for an unknown voice, or if the model has no other.
    """
    for name in names:
        streams.speaker_index(name)
    if len(streams.speakers) < 2:
        raise ValueError("--vc: the model has fewer than two speakers.")
    generator = random.Random(seed)
    converted = []
    for job in jobs:
        own = job.speech.speaker if isinstance(job.speech.speaker, str) else None
        voices = [name for name in names or streams.speakers if name != own]
        if random_voices:
            voices = generator.sample(voices, min(random_voices, len(voices)))
        for voice in voices:
            name = f"{job.name}_{voice.replace('/', '_')}"
            converted.append(replace(job, name=name, speech=replace(job.speech, speaker=voice)))
    return converted
