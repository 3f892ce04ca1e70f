"""Measure generated speech against references, and write a report with plots and players.

    resynth evaluate --generated OUT --reference DATA --outdir REPORT
    resynth evaluate --generated mine=OUT theirs=OTHER --reference WAVS --transcripts text.tsv --outdir REPORT
    resynth evaluate --generated VC --pattern "{name}_{target}" --reference DATA --outdir REPORT
    resynth evaluate --bundle BUNDLE --reference DATA --baselines world,opus,codec2 --outdir REPORT

Files are matched by their names relative to their folders. REPORT/index.html opens without a network;
rows.csv, summary.csv and their JSON hold the figures. The same command continues where it was interrupted.
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.data.storage.messages import first_names


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    from fairseq_resynth.evaluation.metrics.catalogue import OPTIONS

    files = add.group("what is compared")
    files(
        "--generated [NAME=]DIR",
        "folders of audio, or of .rsyn files with --bundle; NAME is what reports call it",
        [],
        nargs="+",
    )
    files(
        "--bundle B",
        "bundle that resynthesizes the references, decodes .rsyn files and encodes units",
    )
    files.shared("--content-checkpoint")
    files("--reference DIR|DATA", "the recordings", required=True)
    files("--split", "split of DATA", "test")
    files(
        "--pattern",
        "names of the generated files: {name}_gen, or {name}_{target} for conversions",
        "{name}",
    )
    files("--transcripts FILE", "lines of name<TAB>text or name|text")
    files(
        "--baselines",
        "some of griffinlim,world,opus:9,codec2:2400,speex:4, with rates in kbit/s or bit/s",
        "",
    )
    metrics = add.group("metrics")
    metrics("--metrics", "names separated by commas", "all")
    metrics(
        "--require",
        "all: exit with 1 if a metric is not installed",
        "available",
        choices=("all", "available"),
    )
    metrics("--list-metrics", "print all metrics and what each needs", action=_ListMetrics)
    for name, described in OPTIONS.items():
        metrics.parser.add_argument(f"--{name.replace('_', '-')}", **described)
    add("--outdir REPORT", "folder to write", required=True)
    common.add_report_options(add)
    add.shared("--workers", "--device", "--json")


class _ListMetrics(argparse.Action):
    def __init__(self, **options):
        super().__init__(nargs=0, **options)

    def __call__(self, parser, namespace, values, option_string=None):
        from fairseq_resynth.evaluation.metrics.catalogue import make_metrics

        for metric in make_metrics("all", {}):
            columns = ", ".join(column.name for column in metric.columns)
            print(f"{metric.name}: {columns}\n    {metric.predicts}")
            print(f"    {metric.missing() or 'ready: ' + metric.version()}")
        parser.exit(0)


def _systems(args: argparse.Namespace, reference) -> tuple[dict, list[str]]:
    from fairseq_resynth.evaluation.runs import generation
    from fairseq_resynth.evaluation.runs.pairing import named_folder, read_folder

    systems, failures = {}, []
    for label, folder in map(named_folder, args.generated):
        if label in systems:
            raise ValueError(f"two systems are called {label!r}; name them with NAME=DIR")
        if generation.has_coded_files(folder):
            out = Path(args.outdir) / "decoded" / label
            systems[label], failed = generation.decode_folder(args.bundle, folder, out, args.device)
            failures += failed
        else:
            systems[label] = read_folder(folder, without=Path(args.outdir))
    if not args.generated:
        out = Path(args.outdir) / "resynthesis"
        made = generation.resynthesize(
            args.bundle, args.content_checkpoint, reference, out, args.device
        )
        systems[Path(args.bundle).resolve().name] = made[0]
        failures += made[1]
    return systems, failures


def _check_outdir(args: argparse.Namespace) -> None:
    """Finds an unusable --outdir before the measurements, which may take hours."""
    from fairseq_resynth.evaluation.runs.pairing import named_folder

    if not args.generated and not args.bundle:
        raise ValueError("give --generated DIR, or --bundle B to resynthesize the references.")
    outdir = Path(args.outdir)
    folders = [Path(args.reference), *(folder for _, folder in map(named_folder, args.generated))]
    if any(folder.resolve() == outdir.resolve() for folder in folders):
        raise ValueError(f"--outdir {outdir} holds the audio that is compared; give another folder")
    common.make_outdir(outdir)


def _check_rank(args: argparse.Namespace, settings: dict) -> None:
    """Finds a wrong --rank-by before the measurements, which may take hours."""
    from fairseq_resynth.evaluation.metrics.catalogue import make_metrics

    metrics = make_metrics(args.metrics, settings)
    names = [column.name for metric in metrics for column in metric.columns if column.better]
    if args.rank_by and args.rank_by not in names:
        raise ValueError(f"--rank-by {args.rank_by!r}: expected one of {', '.join(names)}")


def run(args: argparse.Namespace) -> int:
    """Measures, writes the tables and the page, prints the summary."""
    from fairseq_resynth.evaluation.metrics.catalogue import OPTIONS
    from fairseq_resynth.evaluation.report.report import write_report
    from fairseq_resynth.evaluation.runs.evaluate import Request, evaluate
    from fairseq_resynth.evaluation.runs.pairing import read_collection, read_transcripts

    common.prepare_device(args)
    _check_outdir(args)
    reference = read_collection(args.reference, args.split, without=Path(args.outdir))
    transcripts = read_transcripts(args.transcripts) if args.transcripts else {}
    settings = {
        name: getattr(args, name) for name in (*OPTIONS, "bundle", "content_checkpoint", "device")
    }
    options, outdir = common.page_options(args), Path(args.outdir)
    _check_rank(args, settings)
    systems, failures = _systems(args, reference)
    request = Request(
        systems,
        reference,
        outdir,
        args.pattern,
        transcripts,
        args.metrics,
        settings,
        args.baselines,
        args.workers,
    )
    outcome = evaluate(request)
    write_report(outdir / "index.html", outcome.evaluation, options)
    failures += outcome.failures
    _print(args, outcome, failures)
    missing = bool(outcome.missing) and args.require == "all"
    return int(bool(outcome.evaluation.failed or failures or missing))


def _print(args: argparse.Namespace, outcome, failures: list[str]) -> None:
    from fairseq_resynth.evaluation.runs.store import notes_by_kind

    evaluation = outcome.evaluation
    lines = common.summary_lines(evaluation)
    for system, left in evaluation.unpaired.items():
        for side, names in left.items():
            if names:
                lines.append(
                    f"{system}: {len(names)} {side.replace('_', ' ')}: {first_names(names, 5)}"
                )
    without = evaluation.settings["without_transcript"]
    if without:
        lines.append(f"{len(without)} references without a transcript: {first_names(without, 5)}")
    for kind, names in notes_by_kind(evaluation.rows).items():
        lines.append(f"{kind} ({len(names)}): {first_names(names, 5)}")
    lines += [f"not run: {name}: {reason}" for name, reason in outcome.missing.items()]
    lines += common.failure_lines(evaluation.failed, "utterances not measured, or only in part")
    lines += failures
    lines.append(f"{outcome.reused} values reused; {Path(args.outdir) / 'index.html'}")
    summary = {
        "outdir": args.outdir,
        "reused": outcome.reused,
        "missing": outcome.missing,
        "failed": evaluation.failed,
        "failures": failures,
        "unpaired": evaluation.unpaired,
    }
    common.report(args, summary, lines)
