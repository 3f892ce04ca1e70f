"""Convert any audio to 16 kHz mono files, folders kept; files that are up to date are left alone.

resynth preprocess --srcdir VCTK/wav48 --outdir audio --postfix mic2.flac --pad --trim
"""

import argparse

from fairseq_resynth.cli import common
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.preprocess import PreprocessOptions, preprocess


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("--srcdir", "folder of audio, searched with its subfolders", required=True)
    add("--outdir", "folder to write, with the same subfolders", required=True)
    add("--pad", "append zeros up to a multiple of 1280 samples", False)
    add("--trim", "cut trailing silence (20 dB below the loudest frame)", False)
    add("--postfix", "only files whose names end with it, for instance mic2.flac")
    add("--format", "format of the files", "flac", choices=["flac", "wav"])
    add.shared("--workers", "--shard", "--json")


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
    lines += common.failure_lines(summary.failed, "failed and were left out")
    return common.report(args, summary.to_dict(), lines, summary.failed)
