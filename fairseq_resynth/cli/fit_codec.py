"""Fit the codec's context model on streams: integer tables, and a small network made integer.

resynth fit-codec DATA --out bundle/entropy.safetensors
resynth fit-codec lj_hubert100_val.txt --out lj.safetensors
resynth fit-codec units.txt --out tables.safetensors --network 0
"""

import argparse
from pathlib import Path

import torch

from fairseq_resynth.cli.options import add_json, report
from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import fit_entropy_model
from fairseq_resynth.codec.entropy.network_training import TrainingOptions, default_updates
from fairseq_resynth.data.streams import Utterance, read_utterances, stream_sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "data", nargs="+", metavar="DATA|FILE", help="folders of `resynth quantize`, or unit files"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the model to write")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="of folders; default: all")
    parser.add_argument("--num-units", type=int, metavar="A", help="default: as the data say")
    parser.add_argument("--unit-hop", type=int, metavar="SAMPLES", help="samples a unit (320)")
    parser.add_argument("--num-f0-codes", type=int, metavar="C", help="default: as the data say")
    parser.add_argument("--f0-code-hop", type=int, metavar="SAMPLES", help="samples a code (1280)")
    parser.add_argument(
        "--network",
        type=int,
        default=256,
        metavar="H",
        help="recurrent units (%(default)s); 0: none",
    )
    parser.add_argument(
        "--updates", type=int, metavar="N", help="training steps; default: by the data"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the training (%(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the training; default: torch's"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Fits, writes the model, prints what it is."""
    utterances = [row for path in args.data for row in read_utterances(path, args.split)]
    settings = _settings(args, utterances)
    if args.threads:
        torch.set_num_threads(args.threads)
    updates = default_updates(len(utterances)) if args.updates is None else args.updates
    options = TrainingOptions(hidden_size=args.network, updates=updates, seed=args.seed)
    model = fit_entropy_model(utterances, settings, options)
    model.save(args.out)
    seconds = sum(len(row.units) for row in utterances) * settings.unit_hop / settings.sample_rate
    summary = {
        "out": str(args.out),
        "identity": model.identity.hex(),
        "bytes": Path(args.out).stat().st_size,
        "utterances": len(utterances),
        "seconds": round(seconds, 2),
        "num_units": settings.num_units,
        "num_f0_codes": settings.num_f0_codes,
        "network": args.network if model.network is not None else 0,
    }
    report(args, summary, [f"{name}: {value}" for name, value in summary.items()])
    return 0


def _settings(args: argparse.Namespace, utterances: list[Utterance]) -> Settings:
    sizes = stream_sizes(args.data, utterances)
    given = {
        "num_units": args.num_units,
        "unit_hop": args.unit_hop,
        "num_f0_codes": args.num_f0_codes,
        "f0_code_hop": args.f0_code_hop,
    }
    sizes |= {name: value for name, value in given.items() if value is not None}
    if not sizes["num_f0_codes"] and Settings.f0_code_hop % sizes.get(
        "unit_hop", Settings.unit_hop
    ):
        sizes["f0_code_hop"] = sizes["unit_hop"]  # there is no F0 stream to keep in step with
    return Settings(**sizes)
