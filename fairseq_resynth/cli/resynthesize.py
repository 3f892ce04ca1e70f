"""Resynthesise recordings in one command: audio to units, pitch and speaker, and back.

resynth resynthesize in.wav --path BUNDLE --output out.wav
resynth resynthesize *.flac --path BUNDLE --outdir OUT --speaker NAME
"""

import argparse
from dataclasses import replace
from pathlib import Path

from fairseq_resynth.cli.options import add_json, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="any format, any rate")
    parser.add_argument(
        "--path", required=True, metavar="BUNDLE", help="folder, hub id or address of a bundle"
    )
    parser.add_argument("--output", metavar="FILE", help="of the one recording")
    parser.add_argument("--outdir", metavar="OUT", help="folder for several: NAME.wav each")
    parser.add_argument("--speaker", help="voice to speak with; default: the source")
    parser.add_argument("--source", help="who speaks, if the model knows the voice")
    parser.add_argument("--style", help="for a model with styles")
    parser.add_argument(
        "--content-checkpoint", metavar="FILE", help="weights of the content encoder"
    )
    parser.add_argument("--subtype", choices=("PCM_16", "FLOAT"), default="PCM_16")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    add_json(parser)


def _outputs(args: argparse.Namespace) -> list[Path]:
    if bool(args.output) == bool(args.outdir):
        raise ValueError("give --output FILE for one recording, or --outdir OUT for several.")
    if args.output:
        if len(args.audio) > 1:
            raise ValueError(
                f"--output is one file, and there are {len(args.audio)}: give --outdir."
            )
        return [Path(args.output)]
    outputs = [Path(args.outdir) / f"{Path(audio).stem}.wav" for audio in args.audio]
    if len(set(outputs)) < len(outputs):
        raise ValueError("two recordings have the same name: resynthesise them one by one.")
    return outputs


def run(args: argparse.Namespace) -> int:
    """Writes a file for each recording."""
    from fairseq_resynth.constants import SAMPLE_RATE
    from fairseq_resynth.data.audio.files import write_audio
    from fairseq_resynth.resynthesizer import Resynthesizer

    outputs = _outputs(args)
    inputs = {Path(audio).resolve() for audio in args.audio}
    for output in outputs:
        if output.resolve() in inputs:
            raise ValueError(f"{output} is one of the recordings: write elsewhere.")
    system = Resynthesizer.from_pretrained(args.path, args.content_checkpoint, args.device)
    if args.style and not system.streams.styles:
        raise ValueError("--style needs a model with styles, and this bundle has none.")
    if args.speaker:
        system.streams.speaker_index(args.speaker)
    lines, files = [], []
    for audio, output in zip(args.audio, outputs, strict=True):
        speech = system.encode(audio, args.source)
        speech = replace(speech, speaker=args.speaker or args.source, style=args.style)
        wav = system.decode_all([speech])[0]
        write_audio(output, wav, subtype=args.subtype)
        seconds = len(wav) / SAMPLE_RATE
        files.append({"output": str(output), "units": len(speech.units), "seconds": seconds})
        lines.append(f"{output}: {len(speech.units)} units, {seconds:.2f} s")
    report(args, {"files": files}, lines)
    return 0
