"""Say recordings in another voice, melody or rhythm; what is not asked for stays.

    resynth convert IN.wav --bundle BUNDLE --target russian --outdir OUT
    resynth convert IN_DIR --bundle BUNDLE --target REFERENCE.wav,MORE.wav --outdir OUT
    resynth convert IN.wav --bundle BUNDLE --source english --pitch shift=+3st --rate 0.8 --outdir OUT

A reference is a few seconds of somebody who need not have been in the training; it takes a model trained
with --speaker-input vector.
"""

import argparse

from tqdm import tqdm

from fairseq_resynth.cli.options import add_json, failure_lines, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("input", metavar="IN.wav|IN_DIR", help="what to convert; any audio format")
    parser.add_argument("--bundle", required=True, metavar="B", help="folder, hub id or address")
    parser.add_argument(
        "--target",
        metavar="NAME|REF.wav[,MORE.wav]",
        help="a speaker of the model, or recordings of anybody; default: the source",
    )
    parser.add_argument("--source", metavar="NAME", help="who speaks, if the model knows the voice")
    parser.add_argument("--outdir", required=True, metavar="OUT", help="folder of the wavs")
    parser.add_argument(
        "--pitch", metavar="P", help="shift=+3st, scale=1.2, flatten or from=OTHER.wav"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="R", help="of speaking, 0.25 to 4"
    )
    parser.add_argument(
        "--durations",
        metavar="D",
        help="predicted by the model as the target speaks, or from=OTHER.wav, of the same words",
    )
    parser.add_argument(
        "--duration-speaker",
        metavar="NAME",
        help="durations predicted as this speaker of the model speaks, not as the target does",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in OUT that something else made"
    )
    parser.add_argument("--style", metavar="NAME", help="for a model with styles")
    parser.add_argument(
        "--content-checkpoint", metavar="FILE", help="weights of the content encoder"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Converts and prints what was done; 1 if a file failed."""
    from fairseq_resynth.conversion.convert import Controls
    from fairseq_resynth.conversion.folders import convert_files, find_inputs, parse_target
    from fairseq_resynth.resynthesizer import Resynthesizer

    controls = Controls(args.pitch, args.rate, args.durations, args.style, args.duration_speaker)
    inputs = find_inputs(args.input, args.outdir)
    system = Resynthesizer.from_pretrained(args.bundle, args.content_checkpoint, args.device)
    target = parse_target(args.target) if args.target else None
    with tqdm(total=len(inputs), desc="convert", unit="file", disable=len(inputs) < 2) as bar:
        outcome = convert_files(
            system, inputs, args.outdir, target, args.source, controls, bar.update, args.overwrite
        )
    if len(inputs) == 1 and outcome.failed:
        raise ValueError("; ".join(f"{path}: {why}" for path, why in outcome.failed.items()))
    lines = [
        f"{outcome.written} converted, {outcome.reused} reused, {outcome.seconds:.1f} s, in {args.outdir}"
    ]
    lines += [f"{path}: {note}" for path, notes in outcome.notes.items() for note in notes]
    lines += failure_lines(outcome.failed, "could not be converted")
    report(args, {"outdir": args.outdir, **vars(outcome)}, lines)
    return 1 if outcome.failed else 0
