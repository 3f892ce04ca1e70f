"""What to synthesise: the utterances of a data directory, a file of units or a language model's samples."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.manifest import read_lines
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.data.unit_text import UnitRow, read_generated_units, read_unit_file
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.inference.decoder import UnitDecoder


@dataclass(frozen=True)
class Job:
    """One file to write.

    Attributes:
        name: its path in the output folder, without suffix.
        speech: what to say, and in whose voice.
        reference: the recording, when there is one.
    """

    name: str
    speech: Utterance
    reference: Path | None = None


def read_jobs(source: str | Path, streams: StreamSpec, split: str = "test") -> list[Job]:
    """Reads the utterances of a data directory's split or of a file of units.

    Args:
        source: a data directory; or a file with a line `1 2 3`, `name|1 2 3` or a dict for each utterance,
            beside which NAME.f0 and NAME.speaker may lie.
        streams: of the model.
        split: of the data directory.

    Raises:
        FileNotFoundError, ValueError: a file is missing or malformed, or lacks a stream of the model.
    """
    source = Path(source)
    if source.is_dir():
        dataset = UnitDataset(source, split, streams, load_wav=False)
        return [_dataset_job(dataset, row) for row in range(len(dataset))]
    rows = read_unit_file(source)
    wants_codes = streams.num_f0_codes > 0 and any(row.f0 is None for row in rows)
    f0_codes = _beside(source, ".f0", len(rows), wants_codes)
    speakers = [row.speaker for row in rows]
    if source.with_suffix(".speaker").is_file():
        speakers = read_lines(source.with_suffix(".speaker"), len(rows), "resynth manifest")
    jobs = []
    for row, codes, speaker in zip(rows, f0_codes, speakers, strict=True):
        name = row.name.strip("/").replace("..", "_")
        reference = Path(row.audio) if row.audio and Path(row.audio).is_file() else None
        speech = Utterance(row.units, codes, speaker, len(row.units) * streams.unit_hop)
        speech = replace(speech, style=row.style, **_pitch(row, streams, source))
        jobs.append(Job(name, speech, reference))
    _refuse_repeats(jobs, source)
    return jobs


def _pitch(row: UnitRow, streams: StreamSpec, source: Path) -> dict[str, np.ndarray]:
    """Returns a dict line's pitch, one value a unit, at the rate of the model's pitch stream."""
    if row.f0 is None or not (streams.num_f0_codes or streams.f0_channels):
        return {}
    if streams.f0_channels:
        return {"f0": np.repeat(row.f0.astype(np.float32), streams.unit_hop // F0_HOP)[None]}
    if not np.array_equal(row.f0, np.rint(row.f0)):
        raise ValueError(
            f"{source}: the f0 of {row.name} is continuous, and the model has {streams.num_f0_codes} codes."
        )
    # A code lasts for several units: the one in the middle stands for them.
    hop, samples = streams.f0_code_hop, len(row.units) * streams.unit_hop
    middles = np.arange(-(-samples // hop)) * hop + hop // 2
    chosen = np.minimum(middles // streams.unit_hop, len(row.units) - 1)
    return {"f0_codes": row.f0[chosen].astype(np.int64)}


def read_samples(source: str | Path, streams: StreamSpec) -> tuple[list[Job], list[str]]:
    """Reads what a unit language model wrote, for `predict_durations`.

    Args:
        source: `name|1 2 3 </s>`, `1 2 3`, or the output of fairseq-interactive.
        streams: of a model without pitch.

    Returns:
        (a job a sample, what was left out).

    Raises:
        FileNotFoundError, ValueError: no such file, no units in it, or not such a model.
    """
    if streams.num_f0_codes or streams.f0_channels:
        raise ValueError("the model wants pitch, and units without repeats come without it.")
    found = read_generated_units(source)
    jobs = [
        Job(
            row.name.strip("/").replace("..", "_"),
            Utterance(row.units, None, row.speaker, style=row.style),
        )
        for row in found.rows
    ]
    _refuse_repeats(jobs, Path(source))
    notes = [f"{count} times {symbol} left out" for symbol, count in sorted(found.dropped.items())]
    notes += [f"{name}: no unit in it, nothing written" for name in found.empty]
    return jobs, notes


def predict_durations(jobs: Sequence[Job], decoder: UnitDecoder, rate: float) -> list[Job]:
    """Lets the duration predictor say how long each unit lasts, in the voice of each job.

    Args:
        jobs: runs of a unit count as one.
        decoder: of a model with a duration predictor.
        rate: of speaking; 2 halves every duration.

    Raises:
        ValueError: not such a model, an unknown speaker, units outside the table.
    """
    voices = [job.speech.speaker for job in jobs]
    expanded = decoder.expand([job.speech.units for job in jobs], rate, speaker=voices)
    hop = decoder.streams.unit_hop
    return [
        replace(job, speech=replace(job.speech, units=units, num_samples=len(units) * hop))
        for job, units in zip(jobs, expanded, strict=True)
    ]


def _dataset_job(dataset: UnitDataset, row: int) -> Job:
    styles = dataset.streams.styles
    speech = Utterance(
        dataset.units[row],
        dataset.f0_codes[row] if dataset.f0_codes is not None else None,
        dataset.speakers.voice(row) if dataset.speakers is not None else None,
        int(dataset.manifest.num_samples[row]),
        f0=dataset.f0[row] if dataset.f0 is not None else None,
        style=styles[dataset.styles[row]] if dataset.styles is not None else None,
    )
    return Job(dataset.manifest.name(row), speech, dataset.manifest.path(row))


def _beside(source: Path, suffix: str, rows: int, wanted: bool) -> Sequence[np.ndarray | None]:
    if not wanted:
        return [None] * rows
    path = source.with_suffix(suffix)
    if not path.is_file():
        raise FileNotFoundError(
            f"the model has a pitch stream, and {path} does not exist: put a line of pitch codes for each "
            f"line of {source.name} there (`resynth quantize-f0` writes them for a data directory)."
        )
    return read_integer_rows(path, rows, "resynth quantize-f0")


def _refuse_repeats(jobs: list[Job], source: Path) -> None:
    first: dict[str, int] = {}
    for number, job in enumerate(jobs, 1):
        if job.name in first:
            raise ValueError(f"{source}:{number}: {job.name} is already on line {first[job.name]}.")
        first[job.name] = number


def in_voices(
    jobs: Sequence[Job], streams: StreamSpec, names: Sequence[str], random_voices: int, seed: int
) -> list[Job]:
    """Returns a job for each utterance and each voice that is not its own.

    Args:
        jobs: the utterances.
        streams: of the model.
        names: the voices; empty: all the model has.
        random_voices: this many of them for each utterance, drawn anew; 0: all.
        seed: of the draw.

    Raises:
        ValueError: an unknown voice, or the model has no other.
    """
    for name in names:
        streams.speaker_index(name)
    if len(streams.speakers) < 2:
        raise ValueError("--vc: the model has fewer than two speakers.")
    draw = random.Random(seed)
    converted = []
    for job in jobs:
        voices = [name for name in names or streams.speakers if not _is_voice(job, name)]
        if random_voices:
            voices = draw.sample(voices, min(random_voices, len(voices)))
        for voice in voices:
            name = f"{job.name}_{voice.replace('/', '_')}"
            converted.append(replace(job, name=name, speech=replace(job.speech, speaker=voice)))
    return converted


def _is_voice(job: Job, name: str) -> bool:
    return isinstance(job.speech.speaker, str) and job.speech.speaker == name
