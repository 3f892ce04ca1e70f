"""One evaluation from folders to report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_resynth.evaluation.metrics.catalogue import make_metrics
from fairseq_resynth.evaluation.metrics.metric import Metric
from fairseq_resynth.evaluation.runs.baselines import make_baseline, parse_baselines
from fairseq_resynth.evaluation.runs.measure import REFERENCE, Cache, Job, measure
from fairseq_resynth.evaluation.runs.pairing import (
    Collection,
    Pair,
    Pairing,
    pair_files,
    read_folder,
)
from fairseq_resynth.evaluation.runs.store import Evaluation, collect, write_evaluation
from fairseq_resynth.evaluation.runs.text_files import check_trials, read_trials, transcript_of


@dataclass
class Request:
    """What to evaluate.

    Attributes:
        systems: label -> generated files.
        reference: what they are compared with.
        outdir: for tables, the cache and baselines.
        pattern: how generated files are called, see `pairing.check_pattern`.
        transcripts: name -> words.
        metrics: names separated by commas, or `all`.
        settings: of the metrics.
        baselines: names separated by commas.
        workers: processes.
    """

    systems: dict[str, Collection]
    reference: Collection
    outdir: Path
    pattern: str = "{name}"
    transcripts: Mapping[str, str] = field(default_factory=dict)
    metrics: str = "all"
    settings: Mapping[str, Any] = field(default_factory=dict)
    baselines: str = ""
    workers: int = 1


@dataclass
class Outcome:
    """What `evaluate` found.

    Attributes:
        evaluation: written to `outdir`.
        reused: values taken from an earlier run.
        failures: of baselines; those of utterances are in the evaluation's rows.
        missing: metric or baseline -> what to install.
    """

    evaluation: Evaluation
    reused: int
    failures: list[str]
    missing: dict[str, str]


def evaluate(request: Request) -> Outcome:
    """Pairs, makes baselines, measures, summarises and writes the tables.

    Raises:
        FileNotFoundError, ValueError: no pairs, an unknown metric or baseline.
    """
    metrics = make_metrics(request.metrics, request.settings)
    choices = parse_baselines(request.baselines)
    _check_labels(request.systems, [choice.label for choice in choices])
    missing = {metric.name: metric.missing() for metric in metrics}
    missing |= {choice.label: choice.missing() for choice in choices}
    missing = {name: reason for name, reason in missing.items() if reason}
    targets = _enrolled(request.settings.get("enrol"))
    pairings = {
        label: pair_files(files, request.reference, request.pattern, targets)
        for label, files in request.systems.items()
    }
    _check_trials(request, pairings, targets)
    missing |= _prepare([metric for metric in metrics if metric.name not in missing])
    runnable = [metric for metric in metrics if metric.name not in missing]
    failures: list[str] = []
    references = _references(pairings.values())
    for choice in choices:
        if choice.label not in missing:
            folder = request.outdir / "baselines" / choice.label
            made, failed = make_baseline(choice, references, folder, request.workers)
            failures += failed
            if made.files:
                pairings[choice.label] = pair_files(made, request.reference)
                pairings[choice.label].only_reference = []
    evaluation, reused = _measure(request, pairings, references, runnable, missing)
    return Outcome(evaluation, reused, failures, missing)


def _check_labels(systems: Mapping[str, Collection], baselines: Sequence[str]) -> None:
    if REFERENCE in systems:
        raise ValueError(f"a system cannot be called {REFERENCE!r}; give it another with NAME=DIR")
    labels = [*systems, *baselines]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(
            f"two systems or baselines are called {', '.join(twice)}; name folders with NAME=DIR and give "
            "each of --baselines once"
        )


def _check_trials(
    request: Request, pairings: Mapping[str, Pairing], targets: Sequence[str]
) -> None:
    path = request.settings.get("trials")
    if path:
        names = {pair.name for pairing in pairings.values() for pair in pairing.pairs}
        speakers = targets or set(request.reference.speakers.values())
        check_trials(read_trials(path), names, speakers)


def _prepare(metrics: Sequence[Metric]) -> dict[str, str]:
    """Loads what metrics need; returns why some cannot run. What the user has asked for must load."""
    missing = {}
    for metric in metrics:
        try:
            metric.prepare()
        except (ValueError, FileNotFoundError) as error:
            if metric.settings != type(metric).settings:
                raise
            missing[metric.name] = str(error)
    return missing


def _enrolled(folder: str | None) -> list[str]:
    return sorted(set(read_folder(Path(folder)).speakers.values())) if folder else []


def _references(pairings: Sequence[Pairing]) -> dict[str, Path]:
    pairs = [pair for pairing in pairings for pair in pairing.pairs]
    return {pair.reference_name: pair.reference for pair in pairs}


def _jobs(request: Request, pairings: Mapping[str, Pairing]) -> list[Job]:
    reference, jobs = request.reference, []
    for name, path in _references(pairings.values()).items():
        speaker = reference.speakers.get(name, "")
        pair = Pair(name, path, name, path, speaker, speaker)
        jobs.append(Job(REFERENCE, pair, transcript_of(request.transcripts, name)))
    for label, pairing in pairings.items():
        for pair in pairing.pairs:
            words = transcript_of(request.transcripts, pair.reference_name)
            jobs.append(Job(label, pair, words))
    return jobs


def _measure(
    request: Request,
    pairings: Mapping[str, Pairing],
    references: Mapping[str, Path],
    metrics: list[Metric],
    missing: dict[str, str],
) -> tuple[Evaluation, int]:
    jobs = _jobs(request, pairings)
    without = _check_transcripts(request, references)
    if not any(metric.measures_reference for metric in metrics):
        jobs = [job for job in jobs if job.system != REFERENCE]
    cache = Cache(request.outdir / "cache.jsonl")
    rows, reused = measure(jobs, metrics, cache, request.workers)
    unpaired = {
        label: {
            "only_generated": pairing.only_generated,
            "only_reference": pairing.only_reference,
        }
        for label, pairing in pairings.items()
    }
    settings = {"pattern": request.pattern, "metrics": request.metrics, **request.settings}
    settings |= {"baselines": request.baselines, "reference": str(request.reference.source)}
    rest = {"missing": missing, "unpaired": unpaired, "settings": settings}
    rest["settings"]["without_transcript"] = without
    evaluation = collect(rows, metrics, **rest)
    write_evaluation(request.outdir, evaluation)
    return evaluation, reused


def _check_transcripts(request: Request, references: Mapping[str, Path]) -> list[str]:
    """Returns the references without a transcript; none at all is an error."""
    if not request.transcripts:
        return []
    without = [name for name in references if transcript_of(request.transcripts, name) is None]
    if len(without) == len(references):
        raise ValueError(
            f"no transcript is for one of the references: transcripts are called like "
            f"{next(iter(request.transcripts))!r}, references like {next(iter(references))!r}"
        )
    return without
