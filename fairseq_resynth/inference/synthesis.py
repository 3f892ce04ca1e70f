"""Synthesis of whole sets of utterances into files."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio, write_audio, write_audio_pieces
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.inference.chunks import decode_all, decode_in_chunks, is_long
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.inference.jobs import Job

WINDOW = 64  # utterances held in memory at a time


@dataclass
class SynthesisOutcome(Outcome):
    """What `write_wavs` did; `model_seconds` are those that the generator took for the files written."""

    model_seconds: float = 0.0


@dataclass(frozen=True)
class _Options:
    """How files are written, and where they are recorded."""

    outdir: Path
    subtype: str
    peak_normalize: bool
    with_reference: bool
    record: Record

    def key(self, settings: dict, job: Job) -> str:
        reference = job.reference if self.with_reference else None
        return self.record.key(
            settings, job.speech, reference, self.subtype, self.peak_normalize, self.with_reference
        )


def write_wavs(
    decoder: UnitDecoder,
    jobs: Sequence[Job],
    outdir: str | Path,
    settings: dict,
    subtype: str = "PCM_16",
    peak_normalize: bool = False,
    with_reference: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> SynthesisOutcome:
    """Synthesizes every job into `outdir`/name.wav; what the same model made of the same job is reused.

    Args:
        decoder: the model.
        jobs: what to write.
        outdir: the output folder, created if it does not exist.
        settings: JSON types, what the files depend on in addition to jobs and options: model and precision.
        subtype: PCM_16 or FLOAT.
        peak_normalize: scales each file to a peak of 0.95; otherwise loudness is as the model gives it.
        with_reference: also writes the recording, as long as the synthesis, to name_reference.wav.
        advance: called with the number of jobs done since the last call.

    Raises:
        ValueError: A file to be written is a recording of the data.
    """
    outdir, result = Path(outdir), SynthesisOutcome()
    refuse_recordings(jobs, outdir)
    with Record(outdir) as record:
        options = _Options(outdir, subtype, peak_normalize, with_reference, record)
        todo = []
        for job in jobs:
            key = options.key(settings, job)
            if record.find(f"{job.name}.wav", key) is None:
                todo.append((job, key))
        result.reused = len(jobs) - len(todo)
        advance(result.reused)
        if not peak_normalize:  # which needs all of a file before it writes the first sample
            for job, key in todo:
                if is_long(decoder, job.speech):
                    _write_long(decoder, job, key, options, result)
                    advance(1)
            todo = [(job, key) for job, key in todo if not is_long(decoder, job.speech)]
        for start in range(0, len(todo), WINDOW):
            _write_window(decoder, todo[start : start + WINDOW], options, result)
            advance(len(todo[start : start + WINDOW]))
    return result


def _write_window(
    decoder: UnitDecoder,
    window: Sequence[tuple[Job, str]],
    options: _Options,
    result: SynthesisOutcome,
) -> None:
    started = time.perf_counter()
    wavs = decode_all(decoder, [job.speech for job, _ in window])
    result.model_seconds += time.perf_counter() - started
    for (job, key), wav in zip(window, wavs, strict=True):
        if options.peak_normalize:
            wav = wav * (0.95 / max(float(np.abs(wav).max()), 1e-5))
        with options.record.writing(f"{job.name}.wav", key) as temporary:
            write_audio(temporary, wav, subtype=options.subtype)
        _finish(job, len(wav), options, result)


def refuse_recordings(jobs: Sequence[Job], outdir: Path) -> None:
    """Raises ValueError if a file to be written is one of the recordings."""
    recordings = {job.reference.resolve() for job in jobs if job.reference}
    for job in jobs:
        for out in (outdir / f"{job.name}.wav", outdir / f"{job.name}_reference.wav"):
            if out.resolve() in recordings:
                raise ValueError(f"{out} is a recording of the data: give another --outdir.")


def _write_long(
    decoder: UnitDecoder, job: Job, key: str, options: _Options, result: SynthesisOutcome
) -> None:
    """Writes a file while it is synthesized: an hour takes no more memory than a minute."""
    pieces = _timed(decode_in_chunks(decoder, job.speech), result)
    with options.record.writing(f"{job.name}.wav", key) as temporary:
        length = write_audio_pieces(temporary, pieces, subtype=options.subtype)
    _finish(job, length, options, result)


def _finish(job: Job, length: int, options: _Options, result: SynthesisOutcome) -> None:
    """Writes the recording beside a file that has been synthesized, and counts the file."""
    if options.with_reference and job.reference:
        wav = read_audio(job.reference, 0, min(length, job.speech.num_samples or length))
        path = options.outdir / f"{job.name}_reference.wav"
        write_audio(path, wav, subtype=options.subtype)
    result.seconds += length / SAMPLE_RATE
    result.written += 1


def _timed(pieces: Iterator[np.ndarray], result: SynthesisOutcome) -> Iterator[np.ndarray]:
    started = time.perf_counter()
    for piece in pieces:
        result.model_seconds += time.perf_counter() - started
        yield piece
        started = time.perf_counter()
