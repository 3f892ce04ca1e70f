"""One evaluation, from folders of audio to the tables of figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fairseq_resynth.evaluation.codecs.baselines import parse_baselines
from fairseq_resynth.evaluation.metrics.catalogue import make_metrics
from fairseq_resynth.evaluation.metrics.metric import REFERENCE, Metric
from fairseq_resynth.evaluation.metrics.versa import write_lists
from fairseq_resynth.evaluation.runs.generation import make_baseline
from fairseq_resynth.evaluation.runs.measure import measure
from fairseq_resynth.evaluation.runs.pairing import (
    Collection,
    Pair,
    check_trials,
    pair_files,
    read_folder,
    read_trials,
)
from fairseq_resynth.evaluation.runs.store import Evaluation, collect, write_evaluation


@dataclass
class Request:
    """What to evaluate."""

    systems: dict[str, Collection]  # label -> generated files
    reference: Collection  # what they are compared with
    outdir: Path  # folder for tables, the cache and the baselines' audio
    pattern: str = "{name}"  # what generated files are called, see `pair_files`
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
    """Pairs files, makes baselines, measures, summarizes and writes the tables. Raises FileNotFoundError or
    ValueError if nothing is paired, or a setting is invalid."""
    metrics = make_metrics(request.metrics, request.settings)
    baselines = parse_baselines(request.baselines)
    _check_labels([*request.systems, *(baseline.system for baseline in baselines)])
    missing = {metric.name: metric.missing() for metric in metrics}
    missing |= {baseline.system: baseline.missing for baseline in baselines}
    missing = {name: reason for name, reason in missing.items() if reason}
    pairs, unpaired = _pair_systems(request)
    recordings = {pair.reference_name: pair.reference for pair in pairs}
    missing |= _prepare([metric for metric in metrics if metric.name not in missing])
    metrics = [metric for metric in metrics if metric.name not in missing]
    pair = partial(pair_files, reference=request.reference, transcripts=request.transcripts)
    spoken, _ = pair(Collection(recordings, {}, request.reference.source), system=REFERENCE)
    without_transcript = _without_transcript(spoken, request.transcripts)
    failures: list[str] = []
    for baseline in baselines:
        label, folder = baseline.system, request.outdir / "baselines" / baseline.system
        if label not in missing:
            made, failed = make_baseline(baseline, recordings, folder, request.workers)
            failures += failed
            if made.files:
                own, left = pair(made, system=label)
                pairs, unpaired[label] = pairs + own, {**left, "only_reference": []}
    if folder := request.settings.get("versa"):
        write_lists(Path(folder), spoken + pairs)
    if any(metric.measures_reference for metric in metrics):
        pairs = spoken + pairs
    rows, reused = measure(pairs, metrics, request.outdir, request.workers)
    settings = {
        "pattern": request.pattern,
        "metrics": request.metrics,
        **request.settings,
        "baselines": request.baselines,
        "reference": str(request.reference.source),
        "without_transcript": without_transcript,
    }
    evaluation = collect(rows, metrics, missing=missing, unpaired=unpaired, settings=settings)
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


def _pair_systems(request: Request) -> tuple[list[Pair], dict[str, dict[str, list[str]]]]:
    """The pairs of all systems, and the names without a partner by system; also checks --trials."""
    enroll, trials = map(request.settings.get, ("enroll", "trials"))
    targets = sorted(set(read_folder(Path(enroll)).speakers.values())) if enroll else []
    options = request.pattern, targets, request.transcripts
    pairs, unpaired = [], {}
    for label, files in request.systems.items():
        own, unpaired[label] = pair_files(files, request.reference, *options, label)
        pairs += own
    if trials:
        speakers = set(targets or request.reference.speakers.values())
        check_trials(read_trials(trials), {pair.name for pair in pairs}, speakers)
    return pairs, unpaired


def _prepare(metrics: Sequence[Metric]) -> dict[str, str]:
    """Loads what metrics need; returns why some cannot run. Raises ValueError or FileNotFoundError if what
    the user asked for by a setting cannot be loaded."""
    missing = {}
    for metric in metrics:
        try:
            metric.prepare()
        except (ValueError, FileNotFoundError) as error:
            if metric.settings != type(metric).settings:
                raise
            missing[metric.name] = str(error)
    return missing


def _without_transcript(spoken: Sequence[Pair], transcripts: Mapping[str, str]) -> list[str]:
    """The references without a transcript. Raises ValueError if none of them has one."""
    without = [pair.name for pair in spoken if pair.transcript is None] if transcripts else []
    if len(without) == len(spoken):
        raise ValueError(
            f"no transcript is for one of the references: transcripts are called like "
            f"{next(iter(transcripts))!r}, references like {spoken[0].name!r}"
        )
    return without
