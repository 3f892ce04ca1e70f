"""Options that mean the same in every verb, and how verbs print what they found."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairseq_resynth.constants import FEATURE_TYPES, SAMPLE_RATE

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` must not wait for it
    import torch

    from fairseq_resynth.data.storage.shards import RowsOutcome

REPAIR_ROWS = "repair these files, or drop their rows from the manifest, and run again"
BUNDLE_VARIABLE = "RESYNTH_BUNDLE"


def add_data(parser: argparse.ArgumentParser, what: str = "folder of `resynth manifest`") -> None:
    """Adds the positional DATA."""
    parser.add_argument("data", metavar="DATA", help=what)


def add_splits(parser: argparse.ArgumentParser, default: str = "all that exist") -> None:
    """Adds `--split SPLIT …`; None means all of them."""
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help=f"default: {default}")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds `--workers`; the default is the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=int, default=cores, metavar="N", help="number of processes"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds `--threads`."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch on the CPU; default: its choice"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda, cuda:1 and so on")


def add_shard(parser: argparse.ArgumentParser) -> None:
    """Adds `--shard I/N`."""
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="process only the I-th of N shares (I from 1); the last share to finish joins them",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")


def add_bundle(parser: argparse.ArgumentParser, what: str = "the trained system") -> None:
    """Adds `--bundle`, whose default is the environment variable RESYNTH_BUNDLE."""
    parser.add_argument(
        "--bundle",
        default=os.environ.get(BUNDLE_VARIABLE),
        metavar="B",
        help=f"{what}: a folder, a hub id or an address (default: ${BUNDLE_VARIABLE})",
    )


def require_bundle(args: argparse.Namespace) -> str:
    """The bundle that was given.

    Raises:
        ValueError: if none was given.
    """
    if not args.bundle:
        raise ValueError(
            f"--bundle B is missing, and {BUNDLE_VARIABLE} is not set; `resynth export` makes bundles"
        )
    return args.bundle


def add_checkpoint(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--checkpoint`, a checkpoint of fairseq."""
    parser.add_argument("--checkpoint", metavar="CKPT", help=what)


def add_speaker(parser: argparse._ActionsContainer) -> None:
    """Adds `--speaker`, the speaker of the recording."""
    parser.add_argument(
        "--speaker",
        metavar="NAME",
        help="who speaks in the recording, if the model knows the voice",
    )


def add_target(
    parser: argparse.ArgumentParser,
    what: str = "output voice; default: the speaker's",
    metavar: str = "NAME",
) -> None:
    """Adds `--target`, the output voice."""
    parser.add_argument("--target", metavar=metavar, help=what)


def add_content_checkpoint(parser: argparse._ActionsContainer) -> None:
    """Adds `--content-checkpoint`."""
    parser.add_argument(
        "--content-checkpoint",
        metavar="P",
        help="weights of the content encoder, as they were released: a file, or for hf a folder or a hub id",
    )


def add_encoder(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds the options of a content encoder: its type, weights, layer and device."""
    parser.add_argument(
        "--feature-type",
        choices=list(FEATURE_TYPES),
        required=required,
        help="the encoder; logmel needs no weights" if required else "default: the k-means file's",
    )
    add_content_checkpoint(parser)
    parser.add_argument(
        "--layer",
        type=int,
        metavar="L",
        help="as GSLM counts: hubert from 1, w2v2 from 0, cpc the number of LSTM layers; others from 1",
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        metavar="S",
        help="seconds of speech per batch (default: 100 on a GPU; 0, one file at a time, on a CPU)",
    )
    add_device(parser)
    add_threads(parser)


def prepare_device(args: argparse.Namespace) -> "torch.device":
    """The device that the options name; the number of threads is set.

    Raises:
        ValueError: if this machine has no such device, or the number of threads is not positive.
    """
    import torch

    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"--threads is {args.threads}, expected 1 or more")
        torch.set_num_threads(args.threads)
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {args.device} cannot be used here: {reason}") from error
    return device


def batch_samples(args: argparse.Namespace, device: "torch.device") -> int:
    """The padded size of a batch in samples; 0 stands for one file at a time."""
    if args.batch_seconds is None:
        return 0 if device.type == "cpu" else 100 * SAMPLE_RATE
    if args.batch_seconds < 0:
        raise ValueError(f"--batch-seconds is {args.batch_seconds}, expected 0 or more")
    return int(args.batch_seconds * SAMPLE_RATE)


def add_rate(parser: argparse.ArgumentParser, suffix: str = "") -> None:
    """Adds `--rate`."""
    parser.add_argument(
        "--rate",
        type=float,
        default=1.0,
        metavar="R",
        help=f"speaking rate, 0.25 to 4; 2 is twice as fast{suffix}",
    )


def add_style(parser: argparse.ArgumentParser) -> None:
    """Adds `--style`."""
    parser.add_argument(
        "--style", metavar="NAME", help="speaking style, for a model that was trained with styles"
    )


def check_style(style: str | None, streams: Any) -> None:
    """Raises ValueError if a style was given and the model has none."""
    if style and not streams.styles:
        raise ValueError("--style needs a model with styles, and this one has none.")


def make_outdir(outdir: str | Path) -> Path:
    """Makes the folder to write to.

    Raises:
        NotADirectoryError: if it is a file.
        OSError: if it cannot be made.
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
    """The first names, and a sign if there are more."""
    return ", ".join(names[:number]) + (" …" if len(names) > number else "")


def failure_lines(failed: dict[str, str], what: str) -> list[str]:
    """Failed files as lines: how many, then each with its reason."""
    if not failed:
        return []
    return [f"{len(failed)} {what}:"] + [f"  {name}: {reason}" for name, reason in failed.items()]


def rows_lines(file: str, outcome: "RowsOutcome", remedy: str) -> list[str]:
    """What a verb did with the rows of a split, and the rows that failed.

    Args:
        file: name of the file that it writes.
        outcome: numbers of rows and the failures.
        remedy: what to do about rows that failed.
    """
    state = "written" if outcome.joined else "waits for the other shards"
    if outcome.failed and not outcome.joined:
        state = f"not written: {remedy}"
    line = f"{file}: {outcome.rows} rows, {outcome.reused} of them reused; {state}"
    return [line, *failure_lines(outcome.failed, f"rows of {file} failed")]


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the page that `resynth evaluate` and `resynth report` write."""
    page = parser.add_argument_group("report")
    page.add_argument("--title", default="Evaluation", help="heading of the page")
    page.add_argument(
        "--examples",
        type=int,
        default=10,
        metavar="N",
        help="number of best and of worst utterances with players",
    )
    page.add_argument(
        "--rank-by", default="", metavar="COLUMN", help="the figure that ranks these utterances"
    )
    page.add_argument(
        "--audio",
        choices=("embed", "link", "none"),
        default="embed",
        help="embed the audio in the page, link the files, or leave players out",
    )


def page_options(args: argparse.Namespace):
    """The options of `add_report_options` as `ReportOptions`."""
    from fairseq_resynth.evaluation.report.report import ReportOptions

    if args.examples < 0:
        raise ValueError(f"--examples {args.examples}: expected 0 or more")
    return ReportOptions(args.title, args.examples, args.rank_by, args.audio)


def summary_lines(evaluation) -> list[str]:
    """One line per system and figure: mean, confidence interval, number of utterances."""
    from fairseq_resynth.evaluation.metrics.catalogue import POOLED
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
