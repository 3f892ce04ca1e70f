"""Change the voice, pitch or rhythm of recordings; everything else stays as it is.

    resynth convert IN.wav --bundle BUNDLE --target russian --outdir OUT
    resynth convert IN_DIR --bundle BUNDLE --target REFERENCE.wav,MORE.wav --outdir OUT
    resynth convert IN.wav --bundle BUNDLE --speaker english --pitch shift=+3st --rate 0.8 --outdir OUT

A reference is a few seconds of a person who need not have been in the training data; it needs a model that
was trained with --speaker-input vector.
"""

import argparse

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("input IN.wav|IN_DIR", "what to convert, in any audio format")
    add.bundle()
    add(
        "--target NAME|REF.wav[,MORE.wav]",
        "output voice: a speaker of the model, or recordings of anybody; default: the speaker's",
    )
    add.shared("--speaker")
    add("--outdir OUT", "folder of the wavs", required=True)
    add("--pitch P", "shift=+3st, scale=1.2, flatten or from=OTHER.wav")
    add.shared("--rate")
    add(
        "--durations D",
        "predicted: as the model predicts them for the target; or from=OTHER.wav, a recording of the "
        "same words",
    )
    add(
        "--duration-speaker NAME",
        "predict the durations for this speaker of the model instead of the target",
    )
    add("--overwrite", "replace files in OUT that something else made", False)
    add.shared("--style", "--content-checkpoint", "--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Converts and prints what was done; 1 if a file failed."""
    from tqdm import tqdm

    from fairseq_resynth.conversion.convert import Controls
    from fairseq_resynth.conversion.folders import convert_files, find_inputs, parse_target

    controls = Controls(args.pitch, args.rate, args.durations, args.style, args.duration_speaker)
    inputs = find_inputs(args.input, args.outdir)
    system = common.load_resynthesizer(args)
    target = parse_target(args.target) if args.target else None
    with tqdm(total=len(inputs), desc="convert", unit="file", disable=len(inputs) < 2) as bar:
        outcome = convert_files(
            system, inputs, args.outdir, target, args.speaker, controls, bar.update, args.overwrite
        )
    if len(inputs) == 1 and outcome.failed:
        raise ValueError("; ".join(f"{path}: {why}" for path, why in outcome.failed.items()))
    lines = [
        f"{outcome.written} converted, {outcome.reused} reused, {outcome.seconds:.1f} s, in {args.outdir}"
    ]
    lines += [f"{path}: {note}" for path, notes in outcome.notes.items() for note in notes]
    lines += common.failure_lines(outcome.failed, "could not be converted")
    return common.report(args, {"outdir": args.outdir, **outcome.to_dict()}, lines, outcome.failed)
