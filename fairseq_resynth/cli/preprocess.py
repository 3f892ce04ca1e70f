"""Convert any audio to 16 kHz mono files, folders kept; files that are up to date are left alone.

resynth preprocess --srcdir VCTK/wav48 --outdir audio --postfix mic2.flac --pad --trim
"""

import argparse

from fairseq_resynth.cli.options import add_json, add_shard, add_workers, failure_lines, report
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.preprocess import PreprocessOptions, preprocess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--srcdir", required=True, help="folder of audio, searched with its subfolders"
    )
    parser.add_argument(
        "--outdir", required=True, help="where the files go, in the same subfolders"
    )
    parser.add_argument(
        "--pad", action="store_true", help="append zeros to a multiple of 1280 samples"
    )
    parser.add_argument(
        "--trim", action="store_true", help="cut trailing silence (20 dB below the loudest)"
    )
    parser.add_argument("--postfix", help="only files whose name ends so, for instance mic2.flac")
    parser.add_argument(
        "--format", choices=["flac", "wav"], default="flac", help="default: %(default)s"
    )
    add_workers(parser)
    add_shard(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Converts, prints the summary; 1 if a file failed."""
    options = PreprocessOptions(args.pad, args.trim, args.format)
    summary = preprocess(
        args.srcdir, args.outdir, options, args.postfix, parse_shard(args.shard), args.workers
    )
    lines = [
        f"{summary.written} files written ({summary.seconds / 60:.1f} min), {summary.reused} reused"
    ]
    if summary.clipped:
        lines.append(
            f"{len(summary.clipped)} exceeded full scale and were clipped, {summary.clipped[0]} first"
        )
    lines += failure_lines(summary.failed, "failed and were left out")
    report(args, vars(summary), lines)
    return 1 if summary.failed else 0
