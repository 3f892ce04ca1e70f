"""Synthesize a test set, a file of units, or every utterance in other voices.

    resynth synthesize --bundle BUNDLE --input DATA --outdir OUT
    resynth synthesize --checkpoint checkpoints/checkpoint_best.pt --input units.txt --outdir OUT
    resynth synthesize --bundle BUNDLE --input DATA --outdir OUT --vc --random-targets 5

A file of units has one line per utterance: `1 2 3`, `name|1 2 3`, `[Hu1][Hu2]` or a dict {'audio': …,
'hubert': '1 2 3'}, as a literal or JSON; or it is a parquet file, a saved dataset of Hugging Face, or arrays
of numpy or torch. Beside FILE.txt, FILE.f0 holds the pitch codes and FILE.speaker the speakers; a dict line
may also hold pGSLM's `duration` and `f0`. With --dur-prediction the units come without repeats, as a language
model writes them.
"""

import argparse
from dataclasses import replace
from functools import partial

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add.bundle("the vocoder")
    add("--checkpoint CKPT", "instead of --bundle: a checkpoint of fairseq-train")
    add("--ema", "the checkpoint's averaged weights (--store-ema)", False)
    add("--input DATA|FILE", "data directory or file of units", required=True)
    add.shared("--units-key")
    add("--split", "split of DATA", "test")
    add("--outdir OUT", "folder of the wavs", required=True)
    add("-n N", "only the first N; 0: all", 0)
    add("--target NAME", "output voice of every utterance; default: its own speaker's")
    add.tokens()
    add(
        "--dur-prediction",
        "treat repeats of a unit as one; the duration predictor says how long each lasts; --no-…: each unit "
        "is a frame",
        action=argparse.BooleanOptionalAction,
    )
    add("--rate R", "speaking rate, 0.25 to 4; 2 is twice as fast, with --dur-prediction", 1.0)
    voices = add.group("conversion: every utterance in other voices")
    voices("--vc", "into all other voices, or those below", False)
    voices("--targets A,B", "into these voices", "")
    voices("--random-targets K", "into K voices drawn for each utterance", 0)
    voices("--seed", "seed of --random-targets", 1)
    add("--with-reference", "also write the recordings", False)
    add.shared("--subtype")
    add("--peak-normalize", "scale every file to a peak of 0.95", False)
    add(
        "--precision",
        "bfloat16 is faster on processors with AMX",
        "float32",
        choices=("float32", "bfloat16"),
    )
    add.shared("--device", "--json")


def _decoder(args: argparse.Namespace):
    """The decoder and the identity of its weights."""
    from fairseq_resynth.data.storage.files import file_hash
    from fairseq_resynth.inference.bundle import load_bundle, require_vocoder
    from fairseq_resynth.inference.checkpoints import load_unit_generator
    from fairseq_resynth.inference.decoder import UnitDecoder

    if args.checkpoint:
        generator, streams, _ = load_unit_generator(args.checkpoint, args.ema)
        identity = file_hash(args.checkpoint)
    else:
        bundle = require_vocoder(load_bundle(common.require_bundle(args)))
        generator, streams, identity = bundle.generator, bundle.streams, bundle.identity
    return UnitDecoder(generator, streams, args.device, args.precision), identity


def _check(args: argparse.Namespace) -> None:
    from fairseq_resynth.conversion.prosody import check_rate

    if args.ema and not args.checkpoint:
        raise ValueError("--ema needs --checkpoint: a bundle has one set of weights.")
    if (args.targets or args.random_targets) and not args.vc:
        raise ValueError("--targets and --random-targets need --vc; one voice for all is --target.")
    common.check_count("-n", args.n)
    common.check_count("--random-targets", args.random_targets)
    if args.vc and args.target:
        raise ValueError("--vc speaks in several voices, --target in one: give one of the two.")
    if args.rate != 1 and not args.dur_prediction:
        raise ValueError("--rate needs --dur-prediction.")
    check_rate(args.rate)


def _jobs(args: argparse.Namespace, decoder) -> tuple[list, list[str]]:
    from fairseq_resynth.inference.synthesis import (
        in_other_voices,
        predict_durations,
        read_jobs,
        read_samples,
        with_tokens,
    )

    streams, notes = decoder.streams, []
    if args.dur_prediction:
        jobs, notes = read_samples(args.input, streams, args.units_key)
    else:
        jobs = read_jobs(
            args.input, streams, args.split, args.units_key, args.dur_prediction is False or None
        )
    jobs = jobs[: args.n or None]
    jobs = with_tokens(jobs, streams, common.given_tokens(args))
    if args.target:
        streams.speaker_index(args.target)
        jobs = [replace(job, speech=replace(job.speech, speaker=args.target)) for job in jobs]
    if args.vc:
        names = [name for name in args.targets.split(",") if name]
        jobs = in_other_voices(jobs, streams, names, args.random_targets, args.seed)
    if args.dur_prediction:
        jobs = predict_durations(jobs, decoder, args.rate)
    return jobs, notes


def run(args: argparse.Namespace) -> int:
    """Writes the wavs and prints how many, and the real-time factor."""
    from fairseq_resynth.data.storage.workers import progress, skip
    from fairseq_resynth.inference.synthesis import write_wavs

    _check(args)
    decoder, identity = _decoder(args)
    jobs, notes = _jobs(args, decoder)
    settings = {"model": identity, "ema": args.ema, "precision": args.precision}
    with progress(None, len(jobs), "synthesize") as bar:
        done = write_wavs(
            decoder,
            jobs,
            args.outdir,
            settings,
            args.subtype,
            args.peak_normalize,
            args.with_reference,
            bar.update,
            partial(skip, bar),
        )
    factor = done.model_seconds / done.seconds if done.seconds else None
    line = f"{done.written} files written to {args.outdir}, {done.reused} reused"
    if factor is not None:
        line += f"; {done.seconds:.1f} s of speech, real-time factor {factor:.3f}"
    summary = {**done.to_dict(), "outdir": args.outdir, "real_time_factor": factor}
    return common.report(args, {**summary, "notes": notes}, [line, *notes])
