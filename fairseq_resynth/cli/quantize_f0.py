"""Write {split}.f0, one line of pitch codes per row of the manifest, and f0_codes.json.

    resynth quantize-f0 DATA --checkpoint f0_checkpoints/checkpoint_best.pt
    resynth quantize-f0 DATA --f0-representation quantile --f0-bins 32
    resynth quantize-f0 DATA --f0-representation continuous

DATA holds what `resynth f0` wrote. vqvae is the paper's: codes at 12.5 Hz of a trained F0 VQ-VAE. quantile:
bins of log-F0 at the units' rate, and one for unvoiced. continuous: no codes, the generator takes log-F0 and
voicing at 200 Hz. Each is normalized by the speaker's statistics of speakers.json.
"""

import argparse
import math
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.data.storage.files import read_object
from fairseq_resynth.data.storage.shards import parse_shard


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA", "folder of `resynth manifest` and `resynth f0`")
    add(
        "--f0-representation",
        "what the generator gets",
        "vqvae",
        choices=("vqvae", "quantile", "continuous"),
    )
    add("--checkpoint CKPT", "vqvae: a checkpoint of a trained F0 VQ-VAE")
    add("--bundle B", "vqvae: a bundle that holds one")
    add("--f0-bins N", "quantile: number of bins", 32)
    add(
        "--f0-code-hop SAMPLES",
        "quantile: samples per code, a multiple of 80, at any ratio to the units' hop; default: the units' "
        "hop, or the least multiple of it that is one of 80",
        0,
    )
    add.shared("--split", "--shard", "--json")


def _representation(args: argparse.Namespace, model: str | None) -> tuple:
    from fairseq_resynth.data.pitch.representations import describe, make_representation
    from fairseq_resynth.preparation.f0_codes import fit_quantiles

    if (args.f0_representation == "vqvae") != bool(model):
        raise ValueError(
            "--f0-representation vqvae needs --checkpoint CKPT or --bundle B, and others take neither."
        )
    if args.f0_representation == "quantile":
        if args.f0_bins < 2:
            raise ValueError(f"--f0-bins {args.f0_bins}: expected 2 or more.")
        hint = "The bins have the rate of the units: run `resynth quantize` first."
        unit_hop = read_object(Path(args.data) / "units.json", hint, unit_hop=int)["unit_hop"]
        hop = args.f0_code_hop or math.lcm(unit_hop, F0_HOP)
        if hop < F0_HOP or hop % F0_HOP:
            raise ValueError(f"--f0-code-hop {hop}: expected a multiple of {F0_HOP} samples.")
        return fit_quantiles(args.data, args.f0_bins, hop)
    from fairseq_resynth.inference.checkpoints import load_f0_quantizer

    f0_vqvae = load_f0_quantizer(model)
    description = describe(f0_vqvae, model)
    return make_representation(description, f0_vqvae), description


def run(args: argparse.Namespace) -> int:
    """Quantizes every split and prints the summary; 1 if a row failed."""
    from fairseq_resynth.preparation.f0_codes import write_continuous, write_f0_codes

    if args.checkpoint and args.bundle:
        raise ValueError("--checkpoint and --bundle both name an F0 quantizer: give one.")
    model = args.checkpoint or args.bundle
    shard, splits = parse_shard(args.shard), list(read_splits(args.data, args.split))
    if args.f0_representation == "continuous" and not model:
        description = write_continuous(args.data, splits)
        return common.report(
            args, description, [f"f0_codes.json: continuous, {', '.join(splits)} as in f0/"]
        )
    representation, description = _representation(args, model)
    outcomes = {
        split: write_f0_codes(args.data, split, representation, description, shard)
        for split in splits
    }
    lines = common.rows_lines(outcomes, "{split}.f0", common.REPAIR_ROWS)
    summary = {split: done.to_dict() for split, done in outcomes.items()}
    failed = any(done.failed for done in outcomes.values())
    return common.report(args, {"splits": summary, **description}, lines, failed)
