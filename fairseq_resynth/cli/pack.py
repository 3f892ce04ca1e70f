"""Put a data directory into a few memory-mapped files, from which a random crop reads only its own bytes.

    resynth pack DATA --outdir PACK            # then: fairseq-train PACK …
    resynth pack DATA --outdir PACK --shard 2/8
    resynth pack PACK --verify                 # hash every file

PACK holds the recordings as 16-bit samples, units, pitch codes, and copies of everything else that training
reads; it needs neither DATA nor the recordings. What an earlier run packed is reused. Rows that fail are
named, the exit status is 1, and their split is not complete until they are repaired.
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.data.packed import verify_pack
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.pack import pack_split

_SAMPLES_A_MEGABYTE = 1 << 19


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA", "data folder with units; with --verify: a packed folder")
    add("--outdir PACK", "folder to write, other than DATA")
    add("--verify", "check the hashes of a packed folder, write nothing", False)
    add.shared("--split")
    add("--shard-size MB", "size of a file of recordings, in units of 2**20 bytes", 1024)
    add.shared("--workers", "--shard", "--json")


def run(args: argparse.Namespace) -> int:
    """Packs every split, or verifies them; prints the summary; 1 if a row failed."""
    splits = list(read_splits(args.data, args.split))
    if args.verify:
        files = {split: verify_pack(args.data, split) for split in splits}
        lines = [f"{split}.pack: {count} files are whole" for split, count in files.items()]
        return common.report(args, files, lines)
    if not args.outdir or Path(args.outdir).resolve() == Path(args.data).resolve():
        raise ValueError(
            f"--outdir is {args.outdir}, expected a folder to write other than {args.data}."
        )
    if args.shard_size < 1:
        raise ValueError(f"--shard-size is {args.shard_size}, expected 1 MB or more.")
    outcomes = {
        split: pack_split(
            args.data,
            split,
            args.outdir,
            parse_shard(args.shard),
            args.workers,
            args.shard_size * _SAMPLES_A_MEGABYTE,
        )
        for split in splits
    }
    lines = []
    for split, outcome in outcomes.items():
        state = "waits for other shards"
        if outcome.failed:
            state = f"not complete: {common.REPAIR_ROWS}"
        elif outcome.joined:
            state = f"complete, {outcome.megabytes:.0f} MB"
        done = f"{outcome.written} audio files written, {outcome.reused} reused"
        lines.append(f"{split}.pack: {done}; {state}")
        lines += common.failure_lines(outcome.failed, f"rows of {split} failed")
    summary = {split: outcome.to_dict() for split, outcome in outcomes.items()}
    return common.report(args, summary, lines, any(done.failed for done in outcomes.values()))
