"""Measures every utterance of every system, in parallel, and resumes."""

import hashlib
import json
import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_resynth.data.storage.files import file_hash, write_text
from fairseq_resynth.evaluation.metrics.metric import Comparison, Metric, Recording
from fairseq_resynth.evaluation.runs.pairing import Pair


class Cache:
    """Values by key, one JSON line each, appended as they come; a torn last line is dropped.

    Args:
        path: the file; it is made on the first value.
    """

    def __init__(self, path: Path):
        self.path = path
        self.values: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._read()

    def _read(self) -> None:
        whole, _, torn = self.path.read_bytes().decode(errors="replace").rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                key, values = json.loads(line)
                self.values[key] = dict(values)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.path}:{number}: damaged, found {line[:40]!r}. Delete the file to measure anew."
                ) from error
        if torn:
            write_text(self.path, whole + "\n" if whole else "")

    def add(self, key: str, values: dict[str, Any]) -> None:
        """Keeps a value, on disk before it returns."""
        self.values[key] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([key, values]) + "\n")


REFERENCE = "reference"  # the system of the recordings themselves
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One utterance of one system.

    Attributes:
        system: label.
        pair: the files; for the system `reference` both are the recording.
        transcript: the words, if known.
    """

    system: str
    pair: Pair
    transcript: str | None = None


@dataclass(frozen=True)
class _Measurement:
    """What is left to measure of one job: the metrics and their keys in the cache."""

    job: Job
    metrics: tuple[tuple[int, str], ...]


def _key(identity: list, job: Job, hashes: Mapping[Path, str]) -> str:
    needed = [*identity, hashes[job.pair.generated]]
    needed += [hashes[job.pair.reference], job.system == REFERENCE, job.transcript]
    return hashlib.sha256(json.dumps(needed, default=str).encode()).hexdigest()[:24]


def applicable(metric: Metric, job: Job) -> bool:
    """Tells whether a metric says anything about a job."""
    if "transcript" in metric.needs and job.transcript is None:
        return False
    return job.system != REFERENCE or metric.measures_reference


def _hash_files(jobs: Iterable[Job]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Returns the hashes of readable files, and the reasons of the others."""
    hashes, failures = {}, {}
    for path in dict.fromkeys(p for job in jobs for p in (job.pair.generated, job.pair.reference)):
        try:
            hashes[path] = file_hash(path)
        except OSError as error:
            failures[path] = str(error)
    return hashes, failures


_metrics: list[Metric] = []


def _initialise(metrics: list[Metric]) -> None:
    import torch

    torch.set_num_threads(1)  # the workers share the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops them, without a traceback each
    _metrics[:] = metrics


def _measure_group(group: Sequence[_Measurement]) -> list[tuple[Job, dict[str, Any]]]:
    """Measures all systems of one reference, which is read and analysed once."""
    recordings: dict[Path, Recording] = {}

    def recording(path: Path) -> Recording:
        return recordings.setdefault(path, Recording(path))

    results = []
    for measurement in group:
        job = measurement.job
        files = recording(job.pair.generated), recording(job.pair.reference)
        outcome: dict[str, Any] = {"values": {}, "problems": {}, "error": ""}
        try:
            _ = files[0].wav, files[1].wav
        except (OSError, ValueError) as error:
            outcome["error"] = str(error)
            results.append((job, outcome))
            continue
        for index, key in measurement.metrics:
            _measure_one(_metrics[index], key, job, files, outcome)
        results.append((job, outcome))
    return results


def _measure_one(
    metric: Metric, key: str, job: Job, files: tuple[Recording, Recording], outcome: dict[str, Any]
) -> None:
    with_reference = job.system != REFERENCE or "reference" in metric.needs
    reference = files[1] if with_reference else None
    try:
        values = metric.measure(Comparison(job.pair.name, files[0], reference, job.transcript))
        outcome["values"][key] = values
    # Other people's packages raise what they like on odd audio; the thousand others still count.
    except Exception as error:
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        outcome["problems"][metric.name] = f"{name}{error}"


def _groups(measurements: Sequence[_Measurement]) -> list[list[_Measurement]]:
    by_reference: dict[Path, list[_Measurement]] = defaultdict(list)
    for measurement in measurements:
        by_reference[measurement.job.pair.reference].append(measurement)
    return list(by_reference.values())


def _run(
    groups: Sequence[list[_Measurement]], metrics: list[Metric], workers: int
) -> Iterator[list[tuple[Job, dict[str, Any]]]]:
    if workers < 2 or len(groups) < 2:
        _metrics[:] = metrics
        yield from map(_measure_group, groups)
        return
    # fork after torch has started its threads can hang; spawned workers load their own models
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _initialise, (metrics,)) as pool:
        futures = [pool.submit(_measure_group, group) for group in groups]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process died, perhaps for want of memory: give fewer --workers; what was "
                "measured is kept"
            ) from error
        except (KeyboardInterrupt, GeneratorExit):
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # or leaving would wait for what they have begun
            raise


def measure(
    jobs: Sequence[Job], metrics: list[Metric], cache: Cache, workers: int = 1
) -> tuple[list[Row], int]:
    """Measures jobs with metrics that are installed.

    Args:
        jobs: what to measure.
        metrics: none of them `missing()`.
        cache: values of earlier runs, added to.
        workers: processes.

    Returns:
        One row a job in the same order, and how many values were reused. A row has `system`,
        `name`, `reference_name`, `speaker`, `source_speaker`, `generated`, `reference`, the
        metrics' values, `notes`, `problems` (metric -> reason) and `error` (why the whole utterance
        was not measured).
    """
    hashes, failures = _hash_files(jobs)
    outcomes = {job: {"values": {}, "problems": {}, "error": ""} for job in jobs}
    # once, not once a row: looking up versions and hashing a bundle's weights takes longer than measuring
    identities = {
        metric.name: [metric.name, metric.version(), metric.settings] for metric in metrics
    }
    keys: dict[Job, dict[str, str]] = {}
    measurements, reused = [], 0
    for job in jobs:
        bad = failures.get(job.pair.generated) or failures.get(job.pair.reference)
        if bad:
            outcomes[job]["error"] = bad
            continue
        keys[job] = {
            m.name: _key(identities[m.name], job, hashes) for m in metrics if applicable(m, job)
        }
        missing = [(i, keys[job][m.name]) for i, m in enumerate(metrics) if m.name in keys[job]]
        missing = [(index, key) for index, key in missing if key not in cache.values]
        reused += len(keys[job]) - len(missing)
        if missing or not keys[job]:
            measurements.append(_Measurement(job, tuple(missing)))
    with tqdm(total=len(measurements), unit="utterance", desc="measure", disable=None) as bar:
        for group in _run(_groups(measurements), metrics, workers):
            for job, outcome in group:
                outcomes[job] = outcome
                for key, values in outcome["values"].items():
                    cache.add(key, values)
                bar.update()
    return [_row(job, outcomes[job], keys.get(job, {}), cache) for job in jobs], reused


def _row(job: Job, outcome: dict[str, Any], keys: Mapping[str, str], cache: Cache) -> Row:
    pair = job.pair
    row: Row = {
        "system": job.system,
        "name": pair.name,
        "reference_name": pair.reference_name,
        "speaker": pair.speaker,
        "source_speaker": pair.source_speaker,
        "generated": str(pair.generated),
        "reference": str(pair.reference),
        "notes": [],
        "problems": outcome["problems"],
        "error": outcome["error"],
        **dict(pair.given),
    }
    for key in keys.values():
        values = dict(cache.values.get(key, {}))
        row["notes"] += values.pop("notes", [])
        row.update(values)
    return row
