"""Convert any audio to 16 kHz mono files, folders kept; files that are up to date are left alone.

resynth preprocess --srcdir VCTK/wav48 --outdir audio --postfix mic2.flac --pad --trim
"""

import argparse

from fairseq_resynth.cli import common
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.preprocess import (
    PreprocessOptions,
    count_suffixes,
    preprocess,
)


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("--srcdir", "folder of audio, searched with its subfolders", required=True)
    add("--outdir", "folder to write, with the same subfolders", required=True)
    add("--pad", "append zeros up to a multiple of 1280 samples", False)
    add("--trim", "cut trailing silence (20 dB below the loudest frame)", False)
    add("--postfix", "only files whose names end with it, for instance mic2.flac")
    add("--format", "format of the files", "flac", choices=["flac", "wav"])
    add(
        "--channel C",
        "left, right, a number from 1, mean (of the channels that are not silent) or each, one file "
        "per channel in folders NAME_1, NAME_2 (for `resynth manifest --speaker-from parent`)",
        "mean",
    )
    add("--accept-truncated", "take files that are cut off or damaged up to that point", False)
    add.shared("--workers", "--shard", "--json")


def run(args: argparse.Namespace) -> int:
    """Converts, prints the summary; 1 if a file failed."""
    options = PreprocessOptions(
        args.pad, args.trim, args.format, args.channel, args.accept_truncated
    )
    summary = preprocess(
        args.srcdir, args.outdir, options, args.postfix, parse_shard(args.shard), args.workers
    )
    lines = [
        f"{summary.written} files written ({summary.seconds / 60:.1f} min), {summary.reused} reused"
    ]
    for names, what in (
        (summary.clipped, "exceeded full scale and were clipped"),
        (
            summary.silent_channels,
            "had silent channels, which were left out of the mean or of each",
        ),
        (
            summary.uncorrelated,
            "have nearly uncorrelated channels, which may be two speakers and were "
            "mixed: see --channel",
        ),
        (summary.truncated, "are cut off or damaged, and were taken up to that point"),
        (summary.silent, "are silent: all samples are 0 at 16 bits"),
        (summary.offset, "have a constant offset (DC) larger than their sound, which was kept"),
    ):
        if names:
            lines.append(f"{len(names)} {what}, {names[0]} first")
    if summary.others:
        lines.append(f"other files were left out: {count_suffixes(summary.others)}")
    lines += common.failure_lines(summary.failed, "failed and were left out")
    return common.report(args, summary.to_dict(), lines, summary.failed)
