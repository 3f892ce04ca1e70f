"""Write {split}.units, a line of content units a manifest row, and units.json.

resynth quantize DATA --feature-type logmel --kmeans km.safetensors
resynth quantize DATA --feature-type vqvae --checkpoint-path vqvae_checkpoints/checkpoint_best.pt
resynth quantize DATA --feature-type hubert --checkpoint-path hubert_base_ls960.pt --layer 6 \\
    --kmeans km.safetensors --device cuda
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli.options import (
    add_encoder,
    add_json,
    add_shard,
    batch_samples,
    failure_lines,
    prepare_device,
    report,
)
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.encoders.content import ContentEncoder, build_encoder
from fairseq_resynth.encoders.kmeans import load_kmeans
from fairseq_resynth.preparation.manifest import read_splits
from fairseq_resynth.preparation.quantize import Outcome, UnitEncoder, foreign_units, quantize_split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("data", metavar="DATA", help="folder of `resynth manifest`")
    add_encoder(parser, required=False)
    parser.add_argument("--kmeans", metavar="FILE", help="made by `resynth kmeans`; not for vqvae")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all that are there")
    add_shard(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Quantises every split, prints the summary; 1 if a row failed."""
    device, shard = prepare_device(args), parse_shard(args.shard)
    encoder = _encoder(args, device)
    outcomes = {}
    for split, manifest in read_splits(args.data, args.split).items():
        rows = shard.rows(len(manifest))
        with tqdm(total=len(rows), desc=f"quantize {split}", unit="file", mininterval=0.5) as bar:
            outcomes[split] = quantize_split(
                manifest,
                Path(args.data) / f"{split}.units",
                encoder,
                shard,
                batch_samples(args, device),
                bar.update,
            )
    summary = {split: vars(outcome) for split, outcome in outcomes.items()}
    lines = [line for split, outcome in outcomes.items() for line in _lines(split, outcome)]
    lines += [
        f"note: {name} is of another encoder or k-means than units.json now says; quantise its split too"
        for name in foreign_units(Path(args.data))
    ]
    report(args, summary, lines)
    return 1 if any(outcome.failed for outcome in outcomes.values()) else 0


def _encoder(args: argparse.Namespace, device) -> UnitEncoder:
    if args.feature_type == "vqvae":
        return _vqvae(args, device)
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
    return ContentEncoder(build_encoder(feature_type, args.checkpoint_path, layer, device), kmeans)


def _vqvae(args: argparse.Namespace, device) -> UnitEncoder:
    from fairseq_resynth.encoders.content import VqvaeUnits
    from fairseq_resynth.inference.content import load_content_vqvae

    if args.kmeans or args.layer is not None or not args.checkpoint_path:
        raise ValueError(
            "--feature-type vqvae takes --checkpoint-path (checkpoint or bundle), no --kmeans, no --layer."
        )
    return VqvaeUnits(load_content_vqvae(args.checkpoint_path), device)


def _lines(split: str, outcome: Outcome) -> list[str]:
    state = "written" if outcome.joined else "waits for the other shards"
    if outcome.failed:
        state = "not written: mend these files, or drop their rows from the manifest, and run again"
    lines = [f"{split}.units: {outcome.rows} rows, {outcome.reused} of them reused; {state}"]
    return lines + failure_lines(outcome.failed, f"rows of {split} failed")
