"""Baselines' versions of the recordings, written to files."""

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.evaluation.codecs.baselines import Baseline
from fairseq_resynth.evaluation.metrics.metric import Recording
from fairseq_resynth.evaluation.runs.generated_files import MadeFiles, rate_figures
from fairseq_resynth.evaluation.runs.pairing import Collection

_warm: set[str] = set()


def _make(baseline: Baseline, source: Path, target: Path) -> dict[str, float] | str:
    """Writes one file; returns its figures, or why it could not be made."""
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
    made = MadeFiles(folder, references, baseline.label)
    todo, failures = list(made.todo), []
    sources = [references[name] for name in todo]
    arguments = [baseline] * len(todo), sources, [made.path(name) for name in todo]
    pool = None
    if workers > 1 and len(todo) > 1:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    results = pool.map(_make, *arguments) if pool else map(_make, *arguments)
    try:
        bar = tqdm(results, total=len(todo), unit="file", desc=baseline.label, disable=None)
        for name, figures in zip(todo, bar, strict=True):
            if isinstance(figures, str):
                failures.append(figures)
            else:
                made.keep(name, figures)
    finally:
        collection = made.finish()
        if pool:
            pool.shutdown()
    return collection, failures
