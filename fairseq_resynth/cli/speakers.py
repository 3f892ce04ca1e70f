"""Write a speaker vector for every utterance, {split}.speaker_vectors.npy, and the mean of each speaker.

    resynth speakers DATA --encoder resemblyzer
    resynth speakers DATA --encoder onnx-fbank:ecapa.onnx

A model that is trained on them with --speaker-input vector speaks in voices that it has never heard. An ONNX
or TorchScript encoder maps (1, T) samples at 16 kHz to (1, D); as onnx-fbank or torchscript-fbank it takes
(1, frames, 80) filter banks, as WeSpeaker's do.
"""

import argparse
import functools

from fairseq_resynth.cli import common
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.data.storage.shards import parse_shard


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add.shared("data")
    add(
        "--encoder",
        "resemblyzer, xvector:NAME_OR_FOLDER, torchscript:FILE, onnx:FILE, torchscript-fbank:FILE, "
        "onnx-fbank:FILE",
        "resemblyzer",
    )
    add.shared("--split")
    add(
        "--accept-mean",
        "give utterances with too little speech the mean of their speaker, and exit with 0",
        False,
    )
    add.shared("--workers", "--device", "--shard", "--json")


def run(args: argparse.Namespace) -> int:
    """Computes every split's vectors; 1 if an utterance has none of its own."""
    from fairseq_resynth.encoders.speaker import describe_encoder, embed_file
    from fairseq_resynth.preparation.speakers import build_speaker_vectors, update_speaker_means

    shard, splits = parse_shard(args.shard), list(read_splits(args.data, args.split))
    common.prepare_device(args)
    description = describe_encoder(args.encoder, args.device)
    embed = functools.partial(embed_file, encoder=args.encoder, device=args.device)
    outcomes = {
        split: build_speaker_vectors(
            args.data, split, description, embed, shard, args.workers, args.accept_mean
        )
        for split in splits
    }
    remedy = "leave these files out, or give --accept-mean"
    lines = common.rows_lines(outcomes, "{split}.speaker_vectors.npy", remedy)
    summary = {"splits": {split: done.to_dict() for split, done in outcomes.items()}, **description}
    if all(done.joined for done in outcomes.values()):
        means = update_speaker_means(args.data, description)
        lines.append(f"speaker_vectors.json: {len(means)} speakers, {args.encoder}")
        summary["speakers"] = sorted(means)
    failed = any(done.failed for done in outcomes.values())
    return common.report(args, summary, lines, failed and not args.accept_mean)
