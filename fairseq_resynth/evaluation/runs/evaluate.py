"""One evaluation, from folders of audio to the tables of figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_resynth.evaluation.codecs.baselines import parse_baselines
from fairseq_resynth.evaluation.metrics.catalogue import make_metrics
from fairseq_resynth.evaluation.metrics.metric import Metric
from fairseq_resynth.evaluation.runs.generation import make_baseline
from fairseq_resynth.evaluation.runs.measure import REFERENCE, Measurement, measure
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
    """What to evaluate."""

    systems: dict[str, Collection]  # label -> generated files
    reference: Collection  # what they are compared with
    outdir: Path  # folder for tables, the cache and the baselines' audio
    pattern: str = "{name}"  # what generated files are called, see `pairing.check_pattern`
    transcripts: Mapping[str, str] = field(default_factory=dict)  # name -> words
    metrics: str = "all"  # names separated by commas, or `all`
    settings: Mapping[str, Any] = field(default_factory=dict)  # settings of all metrics together
    baselines: str = ""  # see `parse_baselines`
    workers: int = 1


@dataclass
class Result:
    """The result of `evaluate`."""

    evaluation: Evaluation  # as written to `outdir`
    reused: int  # number of values taken from an earlier run
    failures: list[str]  # failures of baselines; those of utterances are in the evaluation's rows
    missing: dict[str, str]  # metric or baseline -> what to install


def evaluate(request: Request) -> Result:
    """Pairs files, makes baselines, measures, summarizes and writes the tables.

    Raises FileNotFoundError or ValueError if nothing is paired, or a setting is invalid.
    """
    metrics = make_metrics(request.metrics, request.settings)
    baselines = parse_baselines(request.baselines)
    _check_labels([*request.systems, *(baseline.system for baseline in baselines)])
    missing = {metric.name: metric.missing() for metric in metrics}
    missing |= {baseline.system: baseline.missing for baseline in baselines}
    missing = {name: reason for name, reason in missing.items() if reason}
    enroll = request.settings.get("enroll")
    targets = sorted(set(read_folder(Path(enroll)).speakers.values())) if enroll else []
    pairings = {
        label: pair_files(files, request.reference, request.pattern, targets)
        for label, files in request.systems.items()
    }
    pairs = [pair for pairing in pairings.values() for pair in pairing.pairs]
    references = {pair.reference_name: pair.reference for pair in pairs}
    if path := request.settings.get("trials"):
        speakers = targets or set(request.reference.speakers.values())
        check_trials(read_trials(path), {pair.name for pair in pairs}, speakers)
    missing |= _prepare([metric for metric in metrics if metric.name not in missing])
    without_transcript = _check_transcripts(request.transcripts, references)
    failures: list[str] = []
    for baseline in baselines:
        label = baseline.system
        if label not in missing:
            folder = request.outdir / "baselines" / label
            made, failed = make_baseline(baseline, references, folder, request.workers)
            failures += failed
            if made.files:
                pairings[label] = pair_files(made, request.reference)
                pairings[label].only_reference = []
    metrics = [metric for metric in metrics if metric.name not in missing]
    with_reference = any(metric.measures_reference for metric in metrics)
    jobs = _jobs(request, pairings, references if with_reference else {})
    rows, reused = measure(jobs, metrics, request.outdir, request.workers)
    evaluation = collect(
        rows,
        metrics,
        missing=missing,
        unpaired={
            label: {side: getattr(pairing, side) for side in ("only_generated", "only_reference")}
            for label, pairing in pairings.items()
        },
        settings={
            "pattern": request.pattern,
            "metrics": request.metrics,
            **request.settings,
            "baselines": request.baselines,
            "reference": str(request.reference.source),
            "without_transcript": without_transcript,
        },
    )
    write_evaluation(request.outdir, evaluation)
    return Result(evaluation, reused, failures, missing)


def _check_labels(labels: Sequence[str]) -> None:
    if REFERENCE in labels:
        raise ValueError(f"a system cannot be called {REFERENCE!r}; give it another with NAME=DIR")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(
            f"two systems or baselines are called {', '.join(twice)}; name folders with NAME=DIR and "
            "give each of --baselines once"
        )


def _prepare(metrics: Sequence[Metric]) -> dict[str, str]:
    """Loads what metrics need; returns why some cannot run.

    Raises ValueError or FileNotFoundError if what the user asked for by a setting cannot be loaded.
    """
    missing = {}
    for metric in metrics:
        try:
            metric.prepare()
        except (ValueError, FileNotFoundError) as error:
            if metric.settings != type(metric).settings:
                raise
            missing[metric.name] = str(error)
    return missing


def _check_transcripts(transcripts: Mapping[str, str], references: Mapping[str, Path]) -> list[str]:
    """The references without a transcript. Raises ValueError if none of them has one."""
    if not transcripts:
        return []
    without = [name for name in references if transcript_of(transcripts, name) is None]
    if len(without) == len(references):
        raise ValueError(
            f"no transcript is for one of the references: transcripts are called like "
            f"{next(iter(transcripts))!r}, references like {next(iter(references))!r}"
        )
    return without


def _jobs(
    request: Request, pairings: Mapping[str, Pairing], references: Mapping[str, Path]
) -> list[Measurement]:
    jobs = []
    for name, path in references.items():
        speaker = request.reference.speakers.get(name, "")
        pair = Pair(name, path, name, path, speaker, speaker)
        jobs.append(Measurement(REFERENCE, pair, transcript_of(request.transcripts, name)))
    for label, pairing in pairings.items():
        for pair in pairing.pairs:
            words = transcript_of(request.transcripts, pair.reference_name)
            jobs.append(Measurement(label, pair, words))
    return jobs
