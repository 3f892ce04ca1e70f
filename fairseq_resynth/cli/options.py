"""Options that several verbs share, and how they print what they found."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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
