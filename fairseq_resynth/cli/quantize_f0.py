"""Write {split}.f0, a line of F0 codes a manifest row, and f0_codes.json.

    resynth quantize-f0 DATA --path f0_checkpoints/checkpoint_best.pt
    resynth quantize-f0 DATA --f0-representation quantile --f0-bins 32
    resynth quantize-f0 DATA --f0-representation continuous

DATA holds what `resynth f0` wrote. vqvae is the paper's: codes at 12.5 Hz of a trained F0 VQ-VAE. quantile:
bins of log-F0 at the units' rate, and one for unvoiced. continuous: no codes, the generator takes log-F0 and
voicing at 200 Hz. Each is normalised by the speaker's statistics of speakers.json.
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli.options import add_json, add_shard, report
from fairseq_resynth.data.pitch.representations import describe, make_representation
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.f0_codes import F0CodeWriter, fit_quantiles, write_continuous
from fairseq_resynth.preparation.manifest import read_splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "data", metavar="DATA", help="folder of `resynth manifest` and `resynth f0`"
    )
    parser.add_argument(
        "--f0-representation", choices=("vqvae", "quantile", "continuous"), default="vqvae"
    )
    parser.add_argument(
        "--path", metavar="F0_CHECKPOINT", help="vqvae: a trained F0 VQ-VAE, or a bundle"
    )
    parser.add_argument(
        "--f0-bins", type=int, default=32, metavar="N", help="quantile: how many (%(default)s)"
    )
    parser.add_argument(
        "--f0-code-hop",
        type=int,
        default=0,
        metavar="SAMPLES",
        help="quantile: of a code, a multiple of the units' hop, 1280 for 12.5 Hz; default: a unit's",
    )
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all that are there")
    add_shard(parser)
    add_json(parser)


def _writer(args: argparse.Namespace) -> F0CodeWriter:
    if (args.f0_representation == "vqvae") != bool(args.path):
        raise ValueError(
            "--path F0_CHECKPOINT goes with --f0-representation vqvae, and only there."
        )
    if args.f0_representation == "quantile":
        if args.f0_bins < 2:
            raise ValueError(f"--f0-bins {args.f0_bins}: expected 2 or more.")
        hint = "The bins go at the units' rate: run `resynth quantize` first."
        unit_hop = read_json(Path(args.data) / "units.json", hint)["unit_hop"]
        hop = args.f0_code_hop or unit_hop
        if hop < unit_hop or hop % unit_hop:
            raise ValueError(
                f"--f0-code-hop {hop}: expected a multiple of {unit_hop}, the units' hop."
            )
        return F0CodeWriter(args.data, *fit_quantiles(args.data, args.f0_bins, hop))
    from fairseq_resynth.inference.bundle import load_f0_quantizer

    f0_vqvae = load_f0_quantizer(args.path)
    description = describe(f0_vqvae, args.path)
    return F0CodeWriter(args.data, make_representation(description, f0_vqvae), description)


def run(args: argparse.Namespace) -> int:
    """Quantises every split and prints the summary."""
    shard, splits = parse_shard(args.shard), list(read_splits(args.data, args.split))
    if args.f0_representation == "continuous" and not args.path:
        description = write_continuous(args.data, splits)
        report(args, description, [f"f0_codes.json: continuous, {', '.join(splits)} as in f0/"])
        return 0
    writer = _writer(args)
    outcomes = {split: writer.write(split, shard) for split in splits}
    lines = [
        f"{split}.f0: {done['rows']} rows, {done['reused']} of them reused; "
        + ("written" if done["joined"] else "waits for the other shards")
        for split, done in outcomes.items()
    ]
    report(args, {"splits": outcomes, **writer.description}, lines)
    return 0
