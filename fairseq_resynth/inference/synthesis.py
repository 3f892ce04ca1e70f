"""Synthesis of whole sets into files."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio, write_audio, write_audio_pieces
from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.inference.chunks import decode_all, decode_in_chunks, is_long
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.inference.jobs import Job

WINDOW = 64  # utterances held in memory at a time


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

    Raises:
        ValueError: a recording lies where a file is to be written.
    """
    outdir, result = Path(outdir), Written()
    refuse_recordings(jobs, outdir)
    todo = _still_to_do(jobs, outdir, settings)
    result.reused = len(jobs) - len(todo)
    advance(result.reused)
    if not peak_normalize:  # which needs all of a file before it writes the first sample
        long = [job for job in todo if is_long(decoder, job.speech)]
        todo = [job for job in todo if not is_long(decoder, job.speech)]
        for job in long:
            _write_long(decoder, job, outdir, subtype, with_reference, result)
            advance(1)
    for window in _windows(todo):
        started = time.perf_counter()
        wavs = decode_all(decoder, [job.speech for job in window])
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


def refuse_recordings(jobs: Sequence[Job], outdir: Path) -> None:
    """Refuses to write over what is spoken again, with a ValueError that names the file."""
    recordings = {job.reference.resolve() for job in jobs if job.reference}
    for job in jobs:
        for out in (outdir / f"{job.name}.wav", outdir / f"{job.name}_reference.wav"):
            if out.resolve() in recordings:
                raise ValueError(f"{out} is a recording of the data: give another --outdir.")


def _still_to_do(jobs: Sequence[Job], outdir: Path, settings: dict) -> list[Job]:
    """Returns the jobs whose file is not there, or is older than these settings are in force."""
    record = outdir / "synthesis.json"
    if not record.is_file() or read_json(record) != settings:
        write_json(record, settings)
        return list(jobs)
    since = record.stat().st_mtime_ns
    paths = {job.name: outdir / f"{job.name}.wav" for job in jobs}
    made = {
        name for name, path in paths.items() if path.is_file() and path.stat().st_mtime_ns >= since
    }
    return [job for job in jobs if job.name not in made]


def _write_long(
    decoder: UnitDecoder,
    job: Job,
    outdir: Path,
    subtype: str,
    with_reference: bool,
    result: Written,
) -> None:
    """Writes a file while it is synthesised: an hour takes no more memory than a minute."""
    pieces = _timed(decode_in_chunks(decoder, job.speech), result)
    length = write_audio_pieces(outdir / f"{job.name}.wav", pieces, subtype=subtype)
    if with_reference and job.reference:
        _write_reference(outdir, job, length, subtype)
    result.audio_seconds += length / SAMPLE_RATE
    result.written += 1


def _timed(pieces: Iterator[np.ndarray], result: Written) -> Iterator[np.ndarray]:
    started = time.perf_counter()
    for piece in pieces:
        result.model_seconds += time.perf_counter() - started
        yield piece
        started = time.perf_counter()


def _windows(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    for start in range(0, len(jobs), WINDOW):
        yield jobs[start : start + WINDOW]


def _write_reference(outdir: Path, job: Job, length: int, subtype: str) -> None:
    wav = read_audio(job.reference, 0, min(length, job.speech.num_samples or length))
    write_audio(outdir / f"{job.name}_reference.wav", wav, subtype=subtype)
