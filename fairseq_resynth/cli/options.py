"""Options that several verbs share, and how they print what they found."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fairseq_resynth.encoders.content import FEATURE_TYPES


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds `--workers`; default: the cores this process may use."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    parser.add_argument(
        "--workers", type=int, default=cores, metavar="N", help="processes (%(default)s)"
    )


def add_shard(parser: argparse.ArgumentParser) -> None:
    """Adds `--shard I/N`."""
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="do only the I-th of N shares (I from 1); the last share to finish joins them",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")


def make_outdir(outdir: str | Path) -> Path:
    """Makes the folder to write to.

    Raises:
        NotADirectoryError: it is a file.
        OSError: it cannot be made.
    """
    outdir = Path(outdir)
    if outdir.exists() and not outdir.is_dir():
        raise NotADirectoryError(f"--outdir {outdir} is a file; give a folder")
    outdir.mkdir(parents=True, exist_ok=True)
    return outdir


def report(args: argparse.Namespace, summary: dict[str, Any], lines: Sequence[str]) -> None:
    """Prints the summary: as JSON if `--json` was given, else as lines."""
    print(json.dumps(summary, ensure_ascii=False) if args.json else "\n".join(lines))


def shortened(names: Sequence[str], number: int = 5) -> str:
    """Returns the first names, and a sign that there are more."""
    return ", ".join(names[:number]) + (" …" if len(names) > number else "")


def failure_lines(failed: dict[str, str], what: str) -> list[str]:
    """Formats failed files: how many, then each with its reason."""
    if not failed:
        return []
    return [f"{len(failed)} {what}:"] + [f"  {name}: {reason}" for name, reason in failed.items()]


def add_encoder(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds `--feature-type`, `--checkpoint-path`, `--layer`, `--device` and `--workers`."""
    parser.add_argument(
        "--feature-type",
        choices=FEATURE_TYPES,
        required=required,
        help="logmel needs no weights" if required else "default: the k-means file's",
    )
    parser.add_argument(
        "--checkpoint-path",
        metavar="P",
        help="the encoder's weights, as they were released; for hf a folder or a name on the hub",
    )
    parser.add_argument(
        "--layer",
        type=int,
        metavar="L",
        help="as GSLM counts: hubert from 1, w2v2 from 0, cpc the number of LSTM layers; others from 1",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1 … (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="CPU threads (default: torch's choice)"
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        metavar="S",
        help="seconds of speech encoded together (default: 100 on a GPU; 0, one file at a time, on a CPU)",
    )


def prepare_device(args: argparse.Namespace) -> torch.device:
    """Returns the device that the options name, and sets the number of threads.

    Raises:
        ValueError: no such device on this machine.
    """
    if args.workers > 0:
        torch.set_num_threads(args.workers)
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {args.device} cannot be used here: {reason}") from error
    return device


def batch_samples(args: argparse.Namespace, device: torch.device, sample_rate: int = 16000) -> int:
    """Returns the padded size of a batch in samples; 0: one file at a time."""
    if args.batch_seconds is None:
        return 0 if device.type == "cpu" else 100 * sample_rate
    if args.batch_seconds < 0:
        raise ValueError(f"--batch-seconds is {args.batch_seconds}, expected 0 or more")
    return int(args.batch_seconds * sample_rate)


VARIABLE = "RESYNTH_BUNDLE"


def add_bundle(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--bundle`, whose default is the environment variable RESYNTH_BUNDLE."""
    parser.add_argument(
        "--bundle",
        default=os.environ.get(VARIABLE),
        metavar="DIR",
        help=f"{what}; default: ${VARIABLE}",
    )


def require_bundle(args: argparse.Namespace) -> str:
    """Returns the bundle's folder.

    Raises:
        ValueError: none was given.
    """
    if not args.bundle:
        raise ValueError(f"give --bundle DIR, or set {VARIABLE}; `resynth export` makes bundles")
    return args.bundle


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the page, which `resynth report` shares."""
    page = parser.add_argument_group("report")
    page.add_argument("--title", default="Evaluation")
    page.add_argument(
        "--examples", type=int, default=10, metavar="N", help="best and worst N with players"
    )
    page.add_argument("--rank-by", default="", metavar="COLUMN", help="what best and worst mean")
    page.add_argument(
        "--audio",
        choices=("embed", "link", "none"),
        default="embed",
        help="put audio into the page, link the files, or leave players out (%(default)s)",
    )


def page_options(args: argparse.Namespace):
    """Returns the options of `add_report_options` as `ReportOptions`."""
    from fairseq_resynth.evaluation.report.report import ReportOptions

    if args.examples < 0:
        raise ValueError(f"--examples {args.examples}: expected 0 or more")
    return ReportOptions(args.title, args.examples, args.rank_by, args.audio)


def summary_lines(evaluation) -> list[str]:
    """Returns a line a system and figure: mean, interval, utterances."""
    from fairseq_resynth.evaluation.report.report import POOLED
    from fairseq_resynth.evaluation.report.tables import number
    from fairseq_resynth.evaluation.runs.summary import comparison_note

    lines = []
    for system in evaluation.systems:
        lines.append(system)
        for column in (*evaluation.columns, *POOLED):
            figure = evaluation.summary[system]["all"].get(column.name)
            if figure:
                shown = [number(figure[key], column) for key in ("mean", "low", "high")]
                label = f"  {column.label}".ljust(22)
                lines.append(f"{label}{shown[0]:>9}  [{shown[1]}, {shown[2]}]  n={figure['count']}")
    note = comparison_note(evaluation.rows)
    return [*lines, note] if note else lines
