"""Fit the codec's context model on streams: integer tables, and a small network made integer.

resynth fit-codec DATA --out bundle/entropy.safetensors
resynth fit-codec lj_hubert100_val.txt --out lj.safetensors
resynth fit-codec units.txt --out tables.safetensors --network 0
resynth fit-codec tokens.npy --codebooks 4 --out tokens.safetensors       tokens of any tokenizer
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA|FILE", "folders of `resynth quantize`, or unit files", nargs="+")
    add("--out FILE", "the model to write", required=True)
    add("--split SPLIT", "splits of folders; default: all", nargs="+")
    add("--codebooks Q", "tokens per frame, one after the other, or the dimension of an array", 1)
    add.shared("--units-key")
    add("--num-units K", "number of units of each codebook; default: as the data say", type=int)
    add("--unit-hop SAMPLES", "samples per unit (320)", type=int)
    add("--num-f0-codes C", "number of pitch codes; default: as the data say", type=int)
    add("--f0-code-hop SAMPLES", "samples per pitch code (1280)", type=int)
    add("--network H", "size of the recurrent network; 0: none", 256)
    add("--updates N", "training updates of the network; default: by the amount of data", type=int)
    add("--seed N", "seed of the training", 0)
    add.shared("--threads", "--json")


def run(args: argparse.Namespace) -> int:
    """Fits, writes the model, prints what it is."""
    from fairseq_resynth.codec.entropy.entropy_model import Settings
    from fairseq_resynth.codec.entropy.fitting import fit_entropy_model
    from fairseq_resynth.codec.tokens import LARGEST_STREAM
    from fairseq_resynth.data.streams import read_utterances, stream_sizes

    common.set_threads(args.threads)
    if args.codebooks != 1:
        return _fit_tokens(args)
    key = args.units_key
    utterances = [row for path in args.data for row in read_utterances(path, args.split, key)]
    sizes = stream_sizes(args.data, utterances)
    for name in ("num_units", "unit_hop", "num_f0_codes", "f0_code_hop"):
        if getattr(args, name) is not None:
            sizes[name] = getattr(args, name)
    if sizes["num_units"] > LARGEST_STREAM:
        return _fit_tokens(args)
    settings = Settings(**sizes)
    model = fit_entropy_model(utterances, settings, _training(args, len(utterances)))
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
    return common.report(args, summary, [f"{name}: {value}" for name, value in summary.items()])


def _training(args: argparse.Namespace, utterances: int):
    from fairseq_resynth.codec.entropy.fitting import TrainingOptions, default_updates

    updates = default_updates(utterances) if args.updates is None else args.updates
    return TrainingOptions(hidden_size=args.network, updates=updates, seed=args.seed)


def _fit_tokens(args: argparse.Namespace) -> int:
    """Fits on tokens of several codebooks, or of more than a context model of units takes."""
    from fairseq_resynth.codec.tokens import fit_token_model, read_tokens, vocabularies

    how = args.codebooks, args.split, args.units_key
    tokens = [row for path in args.data for row in read_tokens(path, *how)]
    sizes = vocabularies(tokens, args.codebooks, args.num_units)
    model = fit_token_model(tokens, sizes, _training(args, len(tokens)))
    model.save(args.out)
    summary = {
        "out": str(args.out),
        "bytes": Path(args.out).stat().st_size,
        "utterances": len(tokens),
        "frames": sum(len(row.frames) for row in tokens),
        "vocabularies": sizes,
    }
    return common.report(args, summary, [f"{name}: {value}" for name, value in summary.items()])
