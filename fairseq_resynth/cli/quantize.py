"""Write {split}.units, one line of content units per row of the manifest, and units.json.

resynth quantize DATA --feature-type logmel --kmeans km.safetensors
resynth quantize DATA --feature-type vqvae --content-checkpoint vqvae_checkpoints/checkpoint_best.pt
resynth quantize DATA --feature-type hubert --content-checkpoint hubert_base_ls960.pt --layer 6 \\
    --kmeans km.safetensors --device cuda
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.data.storage.shards import parse_shard


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add.shared("data")
    add.encoder(required=False)
    add("--kmeans FILE", "made by `resynth kmeans`; not for vqvae")
    add.shared("--split", "--shard", "--json")


def run(args: argparse.Namespace) -> int:
    """Quantizes every split, prints the summary; 1 if a row failed."""
    from fairseq_resynth.data.manifest import read_splits
    from fairseq_resynth.preparation.units import foreign_units, quantize_split

    device, shard = common.prepare_device(args), parse_shard(args.shard)
    encoder, reading = _encoder(args, device), common.encoder_reading(args, device)
    outcomes = {}
    for split, manifest in read_splits(args.data, args.split).items():
        target = Path(args.data) / f"{split}.units"
        outcomes[split] = quantize_split(manifest, target, encoder, shard, reading)
    summary = {split: outcome.to_dict() for split, outcome in outcomes.items()}
    lines = common.rows_lines(outcomes, "{split}.units", common.REPAIR_ROWS)
    lines += [
        f"note: {name} was made by another encoder or k-means than units.json says; quantize its split too"
        for name in foreign_units(Path(args.data))
    ]
    return common.report(args, summary, lines, any(outcome.failed for outcome in outcomes.values()))


def _encoder(args: argparse.Namespace, device):
    from fairseq_resynth.encoders.content import (
        ContentEncoder,
        VqvaeUnits,
        build_encoder,
        load_kmeans,
    )
    from fairseq_resynth.inference.checkpoints import load_content_vqvae

    if args.feature_type == "vqvae":
        if args.kmeans or args.layer is not None or not args.content_checkpoint:
            raise ValueError(
                "--feature-type vqvae takes --content-checkpoint (checkpoint or bundle), "
                "no --kmeans, no --layer."
            )
        return VqvaeUnits(load_content_vqvae(args.content_checkpoint), device)
    if not args.kmeans:
        raise ValueError("--kmeans FILE is missing. Make it with `resynth kmeans`.")
    kmeans = load_kmeans(args.kmeans)
    feature_type = args.feature_type or kmeans.description["feature_type"]
    layer = kmeans.description["layer"] if args.layer is None else args.layer
    if feature_type != kmeans.description["feature_type"]:
        raise ValueError(
            f"--feature-type is {feature_type}, {args.kmeans} was made from "
            f"{kmeans.description['feature_type']} features. Run `resynth kmeans` for {feature_type}."
        )
    return ContentEncoder(
        build_encoder(feature_type, args.content_checkpoint, layer, device), kmeans
    )
