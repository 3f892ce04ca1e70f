"""Publish a trained system as one folder without a pickle, the bundle.

    resynth export checkpoints/checkpoint_best.pt --f0 f0_checkpoints/checkpoint_best.pt \\
        --kmeans km.safetensors --outdir BUNDLE
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli.options import add_json, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("checkpoint", metavar="CKPT", help="of the unit vocoder")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of --store-ema")
    parser.add_argument("--f0", metavar="F0_CKPT", help="of the F0 quantiser")
    parser.add_argument("--kmeans", metavar="FILE", help="made by `resynth kmeans`")
    parser.add_argument("--outdir", required=True, metavar="BUNDLE", help="folder to write")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Checks that the models belong together and writes the folder."""
    from fairseq_resynth.bundle import build_bundle, save_bundle

    bundle = build_bundle(args.checkpoint, args.f0, args.kmeans, args.ema)
    if bundle.streams.num_f0_codes and not args.f0:
        raise ValueError("the model has a pitch stream: give the F0 quantiser's checkpoint, --f0.")
    identity = save_bundle(args.outdir, bundle)
    files = sorted(path.name for path in Path(args.outdir).iterdir())
    megabytes = sum((Path(args.outdir) / name).stat().st_size for name in files) / 1e6
    lines = [f"{args.outdir}: {', '.join(files)} ({megabytes:.1f} MB), identity {identity}"]
    if not args.kmeans:
        lines.append("no --kmeans: the bundle speaks units, and cannot make them from audio")
    report(args, {"outdir": args.outdir, "identity": identity, "files": files}, lines)
    return 0
