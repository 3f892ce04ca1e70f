"""Change the voice, pitch or rhythm of recordings; everything else stays as it is.

    resynth convert IN.wav --bundle BUNDLE --target russian --outdir OUT
    resynth convert IN_DIR --bundle BUNDLE --target REFERENCE.wav,MORE.wav --outdir OUT
    resynth convert IN.wav --bundle BUNDLE --speaker english --pitch shift=+3st --rate 0.8 --outdir OUT
    cat IN.wav | resynth convert --stream --bundle BUNDLE --target russian > OUT.wav

A reference is a few seconds of a person who need not have been in the training data; it needs a model that
was trained with --speaker-input vector.
"""

import argparse
import sys

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("input IN.wav|IN_DIR", "what to convert, in any audio format", nargs="?")
    add.bundle()
    add(
        "--target NAME|REF.wav[,MORE.wav]",
        "output voice: a speaker of the model, or recordings of anybody; default: the speaker's",
    )
    add.shared("--speaker")
    add("--outdir OUT", "folder of the wavs; required without --stream")
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
    add.tokens()
    add.shared("--content-checkpoint", "--device", "--json")
    add(
        "--stream",
        "convert standard input while it arrives, to standard output: a WAV, or raw 16-bit mono samples",
        False,
    )
    add("--raw-rate HZ", "sample rate of raw samples, with --stream", 16000)
    common.add_live_options(add)


def run(args: argparse.Namespace) -> int:
    """Converts and prints what was done; 1 if a file failed."""
    if args.stream:
        return _stream(args)
    if args.input is None or args.outdir is None:
        raise ValueError("give an input and --outdir, or --stream to read from standard input")
    from tqdm import tqdm

    from fairseq_resynth.conversion.convert import Controls
    from fairseq_resynth.conversion.folders import convert_files, find_inputs, parse_target

    tokens = common.given_tokens(args)
    controls = Controls(args.pitch, args.rate, args.durations, tokens, args.duration_speaker)
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


def _stream(args: argparse.Namespace) -> int:
    from fairseq_resynth.conversion.folders import parse_target
    from fairseq_resynth.data.audio.pcm import PcmReader, to_pcm, wav_header

    refused = {
        "an input": args.input,
        "--outdir": args.outdir,
        "--rate": args.rate != 1,
        "--durations": args.durations,
        "--duration-speaker": args.duration_speaker,
    }
    for name, given in refused.items():
        if given:
            raise ValueError(f"--stream converts standard input as it arrives: leave {name} out")
    source, out = PcmReader(sys.stdin.buffer, args.raw_rate), sys.stdout.buffer
    target = parse_target(args.target) if args.target else None
    converter = common.live_converter(args, target, source.rate)
    out.write(wav_header(source.rate) if source.is_wav else b"")
    try:
        for samples, rate in source:
            out.write(to_pcm(converter.push(samples, rate)))
            out.flush()
    finally:  # what came before an error of the input is not lost
        out.write(to_pcm(converter.flush()))
        out.flush()
    return 0
