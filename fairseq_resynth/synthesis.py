"""Synthesis of whole sets: which utterances, in whose voice, into which files."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fairseq_resynth.data.audio import SAMPLE_RATE, read_audio, write_audio
from fairseq_resynth.data.files import read_json, write_json
from fairseq_resynth.data.manifest import read_lines
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.data.unit_dataset import UnitDataset
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.interop.unit_files import read_unit_file
from fairseq_resynth.unit_decoder import EncodedSpeech, UnitDecoder

WINDOW = 64  # utterances held in memory at a time


@dataclass(frozen=True)
class Job:
    """One file to write.

    Attributes:
        name: its path in the output folder, without suffix.
        speech: what to say, and in whose voice.
        reference: the recording, when there is one.
    """

    name: str
    speech: EncodedSpeech
    reference: Path | None = None


def read_jobs(source: str | Path, streams: Streams, split: str = "test") -> list[Job]:
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
    f0_codes = _beside(source, ".f0", len(rows), streams.num_f0_codes > 0)
    speakers = [row.speaker for row in rows]
    if source.with_suffix(".speaker").is_file():
        speakers = read_lines(source.with_suffix(".speaker"), len(rows), "resynth manifest")
    jobs = []
    for row, codes, speaker in zip(rows, f0_codes, speakers, strict=True):
        name = row.name.strip("/").replace("..", "_")
        reference = Path(row.audio) if row.audio and Path(row.audio).is_file() else None
        speech = EncodedSpeech(row.units, codes, speaker, len(row.units) * streams.unit_hop)
        jobs.append(Job(name, speech, reference))
    _refuse_repeats(jobs, source)
    return jobs


def _dataset_job(dataset: UnitDataset, row: int) -> Job:
    streams = dataset.streams
    speech = EncodedSpeech(
        dataset.units[row],
        dataset.f0_codes[row] if dataset.f0_codes is not None else None,
        streams.speakers[dataset.speakers[row]] if dataset.speakers is not None else None,
        int(dataset.manifest.num_samples[row]),
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
    jobs: Sequence[Job], streams: Streams, names: Sequence[str], random_voices: int, seed: int
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
        voices = [name for name in names or streams.speakers if name != job.speech.speaker]
        if random_voices:
            voices = draw.sample(voices, min(random_voices, len(voices)))
        for voice in voices:
            name = f"{job.name}_{voice.replace('/', '_')}"
            converted.append(replace(job, name=name, speech=replace(job.speech, speaker=voice)))
    return converted


@dataclass
class Written:
    """What `write_wavs` did.

    Attributes:
        written: files made.
        reused: files that an earlier run with the same settings had made.
        audio_seconds: of the files made.
        model_seconds: that the generator took for them.
    """

    written: int = 0
    reused: int = 0
    audio_seconds: float = 0.0
    model_seconds: float = 0.0


def write_wavs(
    decoder: UnitDecoder,
    jobs: Sequence[Job],
    outdir: str | Path,
    settings: dict,
    subtype: str = "PCM_16",
    peak_normalize: bool = False,
    with_reference: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> Written:
    """Synthesises every job into `outdir`/name.wav; the same settings again continue where it stopped.

    Args:
        decoder: the model.
        jobs: what to write.
        outdir: made if it is not there.
        settings: what the wavs depend on (model, precision); files made under others are made again.
        subtype: PCM_16 or FLOAT.
        peak_normalize: scales each file to a peak of 0.95; otherwise loudness is as the model gives it.
        with_reference: also writes the recording, as long as the synthesis, to name_reference.wav.
        advance: told how many jobs are done.
    """
    outdir, result = Path(outdir), Written()
    record = outdir / "synthesis.json"
    same = record.is_file() and read_json(record) == settings
    todo = [job for job in jobs if not (same and (outdir / f"{job.name}.wav").is_file())]
    result.reused = len(jobs) - len(todo)
    advance(result.reused)
    write_json(record, settings)
    for window in _windows(todo):
        started = time.perf_counter()
        wavs = decoder.decode_all([job.speech for job in window])
        result.model_seconds += time.perf_counter() - started
        for job, wav in zip(window, wavs, strict=True):
            if peak_normalize:
                wav = wav * (0.95 / max(float(np.abs(wav).max()), 1e-5))
            write_audio(outdir / f"{job.name}.wav", wav, subtype=subtype)
            if with_reference and job.reference:
                _write_reference(outdir, job, len(wav), subtype)
            result.audio_seconds += len(wav) / SAMPLE_RATE
        result.written += len(window)
        advance(len(window))
    return result


def _windows(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    for start in range(0, len(jobs), WINDOW):
        yield jobs[start : start + WINDOW]


def _write_reference(outdir: Path, job: Job, length: int, subtype: str) -> None:
    wav = read_audio(job.reference, 0, min(length, job.speech.num_samples or length))
    write_audio(outdir / f"{job.name}_reference.wav", wav, subtype=subtype)
