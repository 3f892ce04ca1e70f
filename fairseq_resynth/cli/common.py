"""Options that mean the same in every verb, and how verbs print what they found."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fairseq_resynth.constants import FEATURE_TYPES, SAMPLE_RATE, SPLITS, TOKENS

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` must not wait for it
    import torch

    from fairseq_resynth.data.storage.parts import RowsOutcome
    from fairseq_resynth.preparation.units import Reading
    from fairseq_resynth.resynthesizer import Resynthesizer

REPAIR_ROWS = "repair these files, or drop their rows from the manifest, and run again"
BUNDLE_VARIABLE = "RESYNTH_BUNDLE"


# Options that mean the same in several verbs -> what argparse takes.
_cores = getattr(os, "sched_getaffinity", lambda process: range(os.cpu_count() or 1))(0)
SHARED: dict[str, dict[str, Any]] = {
    "data": {"metavar": "DATA", "help": "folder of `resynth manifest`"},
    "--content-checkpoint": {
        "metavar": "P",
        "help": "weights of the content encoder, as they were released: a file, or for hf a folder "
        "or a hub id",
    },
    "--device": {"default": "cpu", "metavar": "D", "help": "cpu, cuda, cuda:1 and so on"},
    "--json": {"action": "store_true", "help": "print the summary as JSON on stdout"},
    "--rate": {
        "type": float,
        "default": 1.0,
        "metavar": "R",
        "help": "speaking rate, 0.25 to 4; 2 is twice as fast",
    },
    "--shard": {
        "default": "1/1",
        "metavar": "I/N",
        "help": "process only the I-th of N shares (I from 1); the last share to finish joins them",
    },
    "--speaker": {
        "metavar": "NAME",
        "help": "who speaks in the recording, if the model knows the voice",
    },
    "--split": {"nargs": "+", "metavar": "SPLIT", "help": "default: all that exist"},
    "--subtype": {
        "choices": ("PCM_16", "FLOAT"),
        "default": "PCM_16",
        "help": "sample format of the wavs",
    },
    "--threads": {
        "type": int,
        "metavar": "N",
        "help": "threads of torch on the CPU; default: its choice",
    },
    "--units-key": {
        "default": "",
        "metavar": "KEY",
        "help": "what holds the units, where it is unclear: a key or column, a kind of tokens (Hu), the row "
        "of an array, or all for an array whose rows are utterances",
    },
    "--workers": {
        "type": int,
        "default": len(_cores),  # those that this process may use
        "metavar": "N",
        "help": "number of processes",
    },
}


class Options:
    """Adds options to `parser`, or to a group of one: `add("-o --out FILE", "the file to write")`.

    The first argument is the option as the help shows it: its spellings and a placeholder.
    """

    def __init__(self, parser: argparse._ActionsContainer):
        self.parser = parser

    def __call__(self, option: str, help_text: str, default: Any = None, **settings: Any) -> None:
        """Adds an option; a number as the default also sets the type, and False makes a flag."""
        *names, last = option.split()
        if names and not last.startswith("-"):
            settings["metavar"] = last
        else:
            names.append(last)
        if default is False:
            settings["action"] = "store_true"
        elif default is not None:
            settings["default"] = default
            if isinstance(default, int | float):
                settings.setdefault("type", type(default))
        self.parser.add_argument(*names, help=help_text, **settings)

    def shared(self, *names: str) -> None:
        """Adds options of `SHARED`."""
        for name in names:
            self.parser.add_argument(name, **SHARED[name])

    def tokens(self) -> None:
        """Adds an option for each named token: `--style` and so on."""
        for token, what in TOKENS.items():
            self(f"--{token} NAME", f"{what}, for a model that was trained with {token}s")

    def group(self, title: str) -> "Options":
        """A group of options, which the help shows under its title."""
        return Options(self.parser.add_argument_group(title))

    def one_of(self, required: bool = False) -> "Options":
        """A group of options that exclude each other."""
        return Options(self.parser.add_mutually_exclusive_group(required=required))

    def bundle(self, what: str = "the trained system") -> None:
        """Adds `--bundle`, whose default is the environment variable RESYNTH_BUNDLE."""
        text = f"{what}: a folder, a hub id or an address (default: ${BUNDLE_VARIABLE})"
        self("--bundle B", text, os.environ.get(BUNDLE_VARIABLE))

    def encoder(self, required: bool) -> None:
        """Adds the options of a content encoder: its type, weights, layer and device."""
        self(
            "--feature-type",
            "the encoder; logmel needs no weights" if required else "default: the k-means file's",
            choices=list(FEATURE_TYPES),
            required=required,
        )
        self.shared("--content-checkpoint")
        self(
            "--layer L",
            "as GSLM counts: hubert from 1, w2v2 from 0, cpc the number of LSTM layers; others from 1",
            type=int,
        )
        self(
            "--batch-seconds S",
            "seconds of speech per batch (default: 100 on a GPU; 0, one file at a time, on a CPU)",
            type=float,
        )
        self(
            "--workers N",
            "threads that read recordings ahead of the encoder; 0: each when it is needed",
            SHARED["--workers"]["default"],
        )
        self.shared("--device", "--threads")


def require_bundle(args: argparse.Namespace) -> str:
    """The bundle that was given; raises ValueError if none was."""
    if not args.bundle:
        raise ValueError(
            f"--bundle B is missing, and {BUNDLE_VARIABLE} is not set; `resynth export` makes bundles"
        )
    return args.bundle


def load_resynthesizer(args: argparse.Namespace) -> "Resynthesizer":
    """The system of `--bundle`, `--content-checkpoint` and `--device`."""
    from fairseq_resynth.resynthesizer import Resynthesizer

    return Resynthesizer.from_pretrained(require_bundle(args), args.content_checkpoint, args.device)


def prepare_device(args: argparse.Namespace) -> "torch.device":
    """The device that the options name, with their number of threads set for torch, if they have one.

    Raises ValueError if this machine has no such device, or the number of threads is not positive.
    """
    from fairseq_resynth.modules.generators.inference import usable_device

    set_threads(getattr(args, "threads", None))
    return usable_device(args.device)


def set_threads(threads: int | None) -> None:
    """Sets the number of threads of torch, if one was given; raises ValueError if it is not positive."""
    if threads is None:
        return
    import torch

    if threads < 1:
        raise ValueError(f"--threads is {threads}, expected 1 or more")
    torch.set_num_threads(threads)


def encoder_reading(args: argparse.Namespace, device: "torch.device") -> "Reading":
    """How the options of a content encoder say that recordings are read for it."""
    from fairseq_resynth.preparation.units import Reading

    for option, value in (("batch-seconds", args.batch_seconds), ("workers", args.workers)):
        if value is not None and value < 0:
            raise ValueError(f"--{option} is {value}, expected 0 or more")
    seconds = args.batch_seconds
    if seconds is None:
        seconds = 0 if device.type == "cpu" else 100
    return Reading(int(seconds * SAMPLE_RATE), args.workers)


def check_count(option: str, count: int) -> None:
    """Raises ValueError if a number of things to take, where 0 stands for all, is negative."""
    if count < 0:
        raise ValueError(f"{option} is {count}, expected 0 (all) or more")


def given_tokens(args: argparse.Namespace) -> dict[str, str]:
    """The named tokens that were given, such as {"style": "sad"}; `StreamSpec.check_tokens` checks them."""
    return {token: name for token in TOKENS if (name := getattr(args, token))}


def add_references(add: Options) -> None:
    """Adds an option for the published list of each split, `--ref-train` and so on."""
    for split in SPLITS:
        add(f"--ref-{split} FILE", f"list of the files of {split}")


def given_references(args: argparse.Namespace) -> dict[str, str]:
    """The lists of splits that were given."""
    return {split: path for split in SPLITS if (path := getattr(args, f"ref_{split}"))}


def make_outdir(outdir: str | Path) -> Path:
    """Makes the folder to write to; raises NotADirectoryError if it is a file."""
    outdir = Path(outdir)
    if outdir.exists() and not outdir.is_dir():
        raise NotADirectoryError(f"--outdir {outdir} is a file; give a folder")
    outdir.mkdir(parents=True, exist_ok=True)
    return outdir


@contextlib.contextmanager
def output_stream(out: str) -> Iterator[BinaryIO]:
    """Standard output for `-`; otherwise a file that has its name once it is complete. A device or a named
    pipe is written to as it is."""
    if out == "-":
        yield sys.stdout.buffer
        return
    from fairseq_resynth.data.storage.files import atomic_path

    with atomic_path(out) as temporary, temporary.open("wb") as stream:
        yield stream


def report(
    args: argparse.Namespace, summary: dict[str, Any], lines: Sequence[str], failed: object = False
) -> int:
    """Prints the summary, as JSON if `--json` was given, else as lines; returns the exit status."""
    print(json.dumps(summary, ensure_ascii=False) if args.json else "\n".join(lines))
    return 1 if failed else 0


def failure_lines(failed: dict[str, str], what: str) -> list[str]:
    """Failed files as lines: how many, then each with its reason."""
    if not failed:
        return []
    return [f"{len(failed)} {what}:"] + [f"  {name}: {reason}" for name, reason in failed.items()]


def rows_lines(outcomes: Mapping[str, "RowsOutcome"], file: str, remedy: str) -> list[str]:
    """What a verb did with the rows of each split, and the rows that failed.

    `file` is the name of what it writes, with `{split}` in it; `remedy` says what to do about failures.
    """
    lines = []
    for split, outcome in outcomes.items():
        name = file.format(split=split)
        state = "written" if outcome.joined else "waits for the other shards"
        if outcome.failed and not outcome.joined:
            state = f"not written: {remedy}"
        lines.append(f"{name}: {outcome.rows} rows, {outcome.reused} of them reused; {state}")
        lines += failure_lines(outcome.failed, f"rows of {name} failed")
    return lines


def add_live_options(add: Options) -> None:
    """Adds the options of live conversion."""
    add = add.group("live")
    add("--step S", "seconds of audio that are converted at a time", 0.16)
    add("--look-ahead S", "seconds heard after a step; with the step they are the delay", 0.24)
    add("--look-back S", "seconds heard before a step, for the content encoder", 4.0)
    add("--f0-method", "pitch tracker", "swift", choices=("swift", "dio", "harvest", "yaapt"))


def live_converter(args: argparse.Namespace, target: Any, output_rate: int):
    """The `LiveConverter` that the options describe; its result is at `output_rate`, in Hz."""
    from fairseq_resynth.conversion.convert import Controls
    from fairseq_resynth.conversion.live import LiveConverter, LiveWindow

    window = LiveWindow(args.step, args.look_ahead, args.look_back)
    controls = Controls(args.pitch, tokens=given_tokens(args))
    system = load_resynthesizer(args)
    return LiveConverter(
        system, target, args.speaker, controls, window, args.f0_method, output_rate
    )


def add_report_options(add: Options) -> None:
    """Adds the options of the page that `resynth evaluate` and `resynth report` write."""
    add = add.group("report")
    add("--title", "heading of the page", "Evaluation")
    add("--examples N", "number of best and of worst utterances with players", 10)
    add("--rank-by COLUMN", "the figure that ranks these utterances", "")
    add(
        "--audio",
        "embed the audio in the page, link the files, or leave players out",
        "embed",
        choices=("embed", "link", "none"),
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
    from fairseq_resynth.evaluation.runs.store import comparison_note

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
