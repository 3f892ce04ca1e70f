"""Baselines' versions of the recordings, written to files."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.workers import parallel_map
from fairseq_resynth.evaluation.codecs.baselines import Baseline
from fairseq_resynth.evaluation.metrics.metric import Recording
from fairseq_resynth.evaluation.runs.generated_files import GeneratedFiles, rate_figures
from fairseq_resynth.evaluation.runs.pairing import Collection

_warm: set[str] = set()


def _make(job: tuple[str, Path, Path], baseline: Baseline) -> dict[str, float] | str:
    """Writes one file of (name, source, target); returns its figures, or why it could not be made."""
    _, source, target = job
    try:
        wav = Recording(source).wav
        if baseline.label not in _warm:  # the first call in a process imports and compiles
            noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
            baseline.code(noise.astype(np.float32))
            _warm.add(baseline.label)
        started = time.perf_counter()
        coded = baseline.code(wav)
        seconds, elapsed = len(wav) / SAMPLE_RATE, time.perf_counter() - started
        write_audio(target, np.clip(coded.wav, -1, 1))
    # librosa, WORLD and the codecs each raise their own errors on odd audio; the others still count
    except Exception as error:
        return f"{baseline.label}: {source}: {error}"
    figures = {"given_seconds": seconds, "rtf_decode": elapsed / seconds}
    if coded.file_bytes:
        figures |= rate_figures(coded.file_bytes, seconds, coded.packet_bytes)
    return figures


def make_baseline(
    baseline: Baseline, references: Mapping[str, Path], folder: Path, workers: int = 1
) -> tuple[Collection, list[str]]:
    """Writes a baseline's version of each reference, reusing those of an earlier run.

    Args:
        baseline: one that is not missing.
        references: name -> file.
        folder: where the wavs are written.
        workers: processes.

    Returns:
        The files, and the reasons of those that could not be made.
    """
    made, failures = GeneratedFiles(folder, references, baseline.label), []
    jobs = [(name, references[name], made.path(name)) for name in made.todo]
    results = parallel_map(partial(_make, baseline=baseline), jobs, workers)
    try:
        for job, figures in tqdm(
            results, total=len(jobs), unit="file", desc=baseline.label, disable=None
        ):
            if isinstance(figures, str):
                failures.append(figures)
            else:
                made.keep(job[0], figures)
    finally:
        collection = made.finish()
    return collection, sorted(failures)
