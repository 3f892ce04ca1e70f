"""Synthesise a test set, a file of units, or every utterance in other voices.

    resynth synthesize --path checkpoints/checkpoint_best.pt --input DATA --outdir OUT
    resynth synthesize --path BUNDLE --input units.txt --outdir OUT
    resynth synthesize --path BUNDLE --input DATA --outdir OUT --vc --random-speakers 5

A file of units has a line `1 2 3`, `name|1 2 3` or {'audio': …, 'hubert': '1 2 3'} for each utterance;
beside FILE.txt, FILE.f0 holds the pitch codes and FILE.speaker the speakers; a dict line may hold pGSLM's
`duration` and `f0`. With --dur-prediction: units without repeats, as a language model writes them.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli.options import add_json, report
from fairseq_resynth.data.storage.files import file_hash


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--path", required=True, metavar="CKPT|BUNDLE", help="checkpoint or bundle of the vocoder"
    )
    parser.add_argument("--ema", action="store_true", help="the averaged weights of --store-ema")
    parser.add_argument("--input", required=True, metavar="DATA|FILE", help="what to say")
    parser.add_argument("--split", default="test", help="of DATA (%(default)s)")
    parser.add_argument("--outdir", required=True, metavar="OUT", help="folder of the wavs")
    parser.add_argument("-n", type=int, default=0, metavar="N", help="only the first N; 0: all")
    parser.add_argument("--speaker", help="voice of every utterance; default: its own")
    parser.add_argument(
        "--style", help="style of every utterance, for a model with styles; default: its own"
    )
    parser.add_argument(
        "--dur-prediction",
        action="store_true",
        help="repeats count as one; the duration predictor says how long each lasts in the voice",
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="of speaking, with --dur-prediction (%(default)s)"
    )
    voices = parser.add_argument_group("conversion: every utterance in other voices")
    voices.add_argument("--vc", action="store_true", help="into all other voices, or those below")
    voices.add_argument("--speakers", default="", metavar="A,B", help="into these voices")
    voices.add_argument(
        "--random-speakers", type=int, default=0, metavar="K", help="K drawn for each utterance"
    )
    voices.add_argument("--seed", type=int, default=1, help="of the draw (%(default)s)")
    parser.add_argument("--with-reference", action="store_true", help="also write the recordings")
    parser.add_argument("--subtype", choices=("PCM_16", "FLOAT"), default="PCM_16")
    parser.add_argument(
        "--peak-normalize", action="store_true", help="scale every file to a peak of 0.95"
    )
    precisions = {"choices": ("float32", "bfloat16"), "default": "float32"}
    parser.add_argument("--precision", **precisions, help="bfloat16: faster with AMX (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    add_json(parser)


def _decoder(args: argparse.Namespace):
    from fairseq_resynth.inference.bundle import load_bundle
    from fairseq_resynth.inference.checkpoints import load_unit_generator
    from fairseq_resynth.inference.decoder import UnitDecoder

    path = Path(args.path)
    if path.is_dir():
        bundle = load_bundle(path)
        return UnitDecoder(
            bundle.generator, bundle.streams, args.device, args.precision
        ), bundle.identity
    generator, streams, _ = load_unit_generator(path, args.ema)
    return UnitDecoder(generator, streams, args.device, args.precision), file_hash(path)


def _check(args: argparse.Namespace, streams) -> None:
    from fairseq_resynth.conversion.prosody import check_rate

    if (args.speakers or args.random_speakers) and not args.vc:
        raise ValueError(
            "--speakers and --random-speakers need --vc; one voice for all: --speaker."
        )
    if args.n < 0 or args.random_speakers < 0:
        raise ValueError(
            f"-n {args.n} and --random-speakers {args.random_speakers}: expected 0 (all) or more."
        )
    if args.vc and args.speaker:
        raise ValueError("--vc renders several voices, --speaker one: give one of the two.")
    if args.rate != 1 and not args.dur_prediction:
        raise ValueError("--rate needs --dur-prediction.")
    check_rate(args.rate)
    if args.style and not streams.styles:
        raise ValueError("--style needs a model with styles, and this one has none.")


def _jobs(args: argparse.Namespace, decoder) -> tuple[list, list[str]]:
    from fairseq_resynth.inference.jobs import (
        in_other_voices,
        predict_durations,
        read_jobs,
        read_samples,
    )

    streams, notes = decoder.streams, []
    _check(args, streams)
    if args.dur_prediction:
        jobs, notes = read_samples(args.input, streams)
    else:
        jobs = read_jobs(args.input, streams, args.split)
    jobs = jobs[: args.n or None]
    if args.style:
        jobs = [replace(job, speech=replace(job.speech, style=args.style)) for job in jobs]
    if args.speaker:
        streams.speaker_index(args.speaker)
        jobs = [replace(job, speech=replace(job.speech, speaker=args.speaker)) for job in jobs]
    if args.vc:
        names = [name for name in args.speakers.split(",") if name]
        jobs = in_other_voices(jobs, streams, names, args.random_speakers, args.seed)
    if args.dur_prediction:
        jobs = predict_durations(jobs, decoder, args.rate)
    return jobs, notes


def run(args: argparse.Namespace) -> int:
    """Writes the wavs and prints how many, and the real-time factor."""
    from fairseq_resynth.inference.synthesis import write_wavs

    decoder, identity = _decoder(args)
    jobs, notes = _jobs(args, decoder)
    settings = {
        "model": identity,
        "ema": args.ema,
        "input": str(Path(args.input).resolve()),
        "split": args.split,
        "speaker": args.speaker,
        "style": args.style,
        "rate": args.rate if args.dur_prediction else None,
        "precision": args.precision,
        "subtype": args.subtype,
        "peak_normalize": args.peak_normalize,
        "with_reference": args.with_reference,
    }
    with tqdm(total=len(jobs), desc="synthesize", unit="file") as bar:
        done = write_wavs(
            decoder,
            jobs,
            args.outdir,
            settings,
            args.subtype,
            args.peak_normalize,
            args.with_reference,
            bar.update,
        )
    factor = done.model_seconds / done.audio_seconds if done.audio_seconds else None
    line = f"{done.written} files written to {args.outdir}, {done.reused} reused"
    if factor is not None:
        line += f"; {done.audio_seconds:.1f} s of speech, real-time factor {factor:.3f}"
    summary = {**vars(done), "outdir": args.outdir, "real_time_factor": factor}
    report(args, {**summary, "notes": notes}, [line, *notes])
    return 0
