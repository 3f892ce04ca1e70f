"""Write {split}.f0, a line of F0 codes a manifest row, and f0_codes.json.

    resynth quantize-f0 DATA --path f0_checkpoints/checkpoint_best.pt

DATA holds what `resynth f0` wrote. F0 is normalised by each speaker's statistics of speakers.json.
"""

import argparse

from fairseq_resynth.bundle import load_f0_quantizer
from fairseq_resynth.cli.options import add_json, add_shard, report
from fairseq_resynth.data.f0_codes import F0CodeWriter
from fairseq_resynth.data.sharding import parse_shard
from fairseq_resynth.data.splits import read_splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "data", metavar="DATA", help="folder of `resynth manifest` and `resynth f0`"
    )
    parser.add_argument(
        "--path", required=True, metavar="F0_CHECKPOINT", help="a trained F0 VQ-VAE, or a bundle"
    )
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all that are there")
    add_shard(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Quantises every split and prints the summary."""
    shard, splits = parse_shard(args.shard), list(read_splits(args.data, args.split))
    f0_vqvae = load_f0_quantizer(args.path)
    writer = F0CodeWriter(args.data, f0_vqvae, args.path)
    outcomes = {split: writer.write(split, shard) for split in splits}
    lines = [
        f"{split}.f0: {done['rows']} rows, {done['reused']} of them reused; "
        + ("written" if done["joined"] else "waits for the other shards")
        for split, done in outcomes.items()
    ]
    report(args, {"splits": outcomes, **writer.description}, lines)
    return 0
