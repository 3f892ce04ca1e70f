"""Synthesis of whole sets of utterances into files."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio, write_audio
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.inference.chunks import decode_all, decode_in_chunks, is_long
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.inference.jobs import Job

WINDOW = 64  # utterances held in memory at a time


@dataclass
class SynthesisOutcome(Outcome):
    """What `write_wavs` did; `model_seconds` are those that the generator took for the files written."""

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

    Raises ValueError if a file to be written is a recording of the data.
    """
    outdir = Path(outdir)
    refuse_recordings(jobs, outdir)
    with Record(outdir) as record:
        writer = _Writer(decoder, record, subtype, peak_normalize, with_reference)
        todo = []
        for job in jobs:
            reference = job.reference if with_reference else None
            key = record.key(
                settings, job.speech, reference, subtype, peak_normalize, with_reference
            )
            if record.find(f"{job.name}.wav", key) is not None:
                writer.result.reused += 1
            elif is_long(decoder, job.speech) and not peak_normalize:  # which needs the whole file
                writer.write_long(job, key)
            else:
                todo.append((job, key))
                continue
            advance(1)
        for start in range(0, len(todo), WINDOW):
            writer.write_window(todo[start : start + WINDOW])
            advance(len(todo[start : start + WINDOW]))
    return writer.result


def refuse_recordings(jobs: Sequence[Job], outdir: Path) -> None:
    """Raises ValueError if a file to be written is one of the recordings."""
    recordings = {job.reference.resolve() for job in jobs if job.reference}
    for job in jobs:
        for out in (outdir / f"{job.name}.wav", outdir / f"{job.name}_reference.wav"):
            if out.resolve() in recordings:
                raise ValueError(f"{out} is a recording of the data: give another --outdir.")


@dataclass
class _Writer:
    """Synthesizes, writes and records files, and counts them."""

    decoder: UnitDecoder
    record: Record
    subtype: str
    peak_normalize: bool
    with_reference: bool
    result: SynthesisOutcome = field(default_factory=SynthesisOutcome)

    def write_window(self, window: Sequence[tuple[Job, str]]) -> None:
        started = time.perf_counter()
        wavs = decode_all(self.decoder, [job.speech for job, _ in window])
        self.result.model_seconds += time.perf_counter() - started
        for (job, key), wav in zip(window, wavs, strict=True):
            if self.peak_normalize:
                wav = wav * (0.95 / max(float(np.abs(wav).max()), 1e-5))
            with self.record.writing(f"{job.name}.wav", key) as temporary:
                write_audio(temporary, wav, subtype=self.subtype)
            self._finish(job, len(wav))

    def write_long(self, job: Job, key: str) -> None:
        """Writes a file while it is synthesized: an hour takes no more memory than a minute."""
        with self.record.writing(f"{job.name}.wav", key) as temporary:
            length = write_audio(temporary, self._pieces(job), subtype=self.subtype)
        self._finish(job, length)

    def _pieces(self, job: Job) -> Iterator[np.ndarray]:
        started = time.perf_counter()
        for piece in decode_in_chunks(self.decoder, job.speech):
            self.result.model_seconds += time.perf_counter() - started
            yield piece
            started = time.perf_counter()

    def _finish(self, job: Job, length: int) -> None:
        """Writes the recording next to a file that has been synthesized, and counts the file."""
        if self.with_reference and job.reference:
            wav = read_audio(job.reference, 0, min(length, job.speech.num_samples or length))
            path = self.record.folder / f"{job.name}_reference.wav"
            write_audio(path, wav, subtype=self.subtype)
        self.result.seconds += length / SAMPLE_RATE
        self.result.written += 1
