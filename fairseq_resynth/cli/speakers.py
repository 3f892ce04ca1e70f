"""Write a speaker vector for every utterance, {split}.speaker_vectors.npy, and speakers' means.

    resynth speakers DATA --encoder resemblyzer
    resynth speakers DATA --encoder onnx-fbank:ecapa.onnx

A model trained with --speaker-input vector on them speaks in voices that it has never heard. An ONNX or
TorchScript encoder maps (1, T) samples at 16 kHz to (1, D); as onnx-fbank or torchscript-fbank it takes
(1, frames, 80) filter banks, as WeSpeaker's do.
"""

import argparse
import functools
from pathlib import Path

from fairseq_resynth.cli.options import add_json, add_shard, add_workers, failure_lines, report
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.manifest import read_splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("data", metavar="DATA", help="folder of `resynth manifest`")
    parser.add_argument(
        "--encoder",
        default="resemblyzer",
        help="or xvector:NAME_OR_FOLDER, torchscript:FILE, onnx:FILE, torchscript-fbank:FILE, "
        "onnx-fbank:FILE (%(default)s)",
    )
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all that are there")
    parser.add_argument(
        "--accept-mean",
        action="store_true",
        help="utterances with too little voice take their speaker's mean, and exit with 0",
    )
    add_workers(parser)
    add_shard(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Computes every split's vectors; 1 if an utterance has none of its own."""
    from fairseq_resynth.encoders.speaker import describe_encoder, embed_file
    from fairseq_resynth.preparation.speakers import build_speaker_vectors, write_speaker_means

    shard, splits = parse_shard(args.shard), list(read_splits(args.data, args.split))
    description = describe_encoder(args.encoder)
    embed = functools.partial(embed_file, encoder=args.encoder)
    outcomes = {
        split: build_speaker_vectors(
            args.data, split, description, embed, shard, args.workers, args.accept_mean
        )
        for split in splits
    }
    lines = []
    for split, done in outcomes.items():
        state = "written" if done.joined else "waits for the other shards"
        if done.failed and not done.joined:
            state = "not written: leave these files out, or give --accept-mean"
        lines.append(
            f"{split}: {done.rows} files, {done.reused} of them reused; "
            f"{split}.speaker_vectors.npy {state}"
        )
        lines += failure_lines(done.failed, f"files of {split} have no vector")
    summary = {"splits": {split: vars(done) for split, done in outcomes.items()}, **description}
    there = [split for split in read_splits(args.data, None) if _is_there(args.data, split)]
    if all(done.joined for done in outcomes.values()):
        means = write_speaker_means(args.data, there, description)
        lines.append(f"speaker_vectors.json: {len(means)} speakers, {args.encoder}")
        summary["speakers"] = sorted(means)
    report(args, summary, lines)
    failed = any(done.failed for done in outcomes.values())
    return 1 if failed and not args.accept_mean else 0


def _is_there(data: str, split: str) -> bool:
    return (Path(data) / f"{split}.speaker_vectors.npy").is_file()
