"""Resynthesize recordings in one command: audio to units, pitch and speaker, and back.

resynth resynthesize in.wav --bundle BUNDLE --out out.wav
resynth resynthesize *.flac --bundle BUNDLE --outdir OUT --target NAME
"""

import argparse
from dataclasses import replace
from pathlib import Path

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("audio AUDIO", "recordings of any format and sample rate", nargs="+")
    add.bundle()
    add("--out FILE", "the file to write, for one recording")
    add("--outdir OUT", "the folder for several: NAME.wav each")
    add.shared("--speaker")
    add("--target NAME", "output voice; default: the speaker's")
    add.tokens()
    add.shared("--content-checkpoint", "--subtype", "--device", "--json")


def _outputs(args: argparse.Namespace) -> list[Path]:
    if bool(args.out) == bool(args.outdir):
        raise ValueError("give --out FILE for one recording, or --outdir OUT for several.")
    if args.out and len(args.audio) > 1:
        raise ValueError(f"--out is one file, and there are {len(args.audio)}: give --outdir.")
    if args.out:
        outputs = [Path(args.out)]
    else:
        outputs = [Path(args.outdir) / f"{Path(audio).stem}.wav" for audio in args.audio]
    for number, output in enumerate(outputs):
        if (first := outputs.index(output)) < number:
            raise ValueError(
                f"{args.audio[first]} and {args.audio[number]} would both become {output}: resynthesize them "
                "one by one."
            )
    inputs = {Path(audio).resolve() for audio in args.audio}
    for output in outputs:
        if output.resolve() in inputs:
            raise ValueError(f"{output} is one of the recordings: write elsewhere.")
    return outputs


def run(args: argparse.Namespace) -> int:
    """Writes a file for each recording."""
    from fairseq_resynth.constants import SAMPLE_RATE
    from fairseq_resynth.data.audio.files import write_audio
    from fairseq_resynth.data.storage.files import require_written

    outputs = _outputs(args)
    system = common.load_resynthesizer(args)
    tokens = common.given_tokens(args)
    system.streams.check_tokens(tokens)
    for name in filter(None, (args.speaker, args.target)):
        system.streams.speaker_index(name)
    lines, files = [], []
    for audio, output in zip(args.audio, outputs, strict=True):
        speech = system.encode(audio, args.speaker)
        speech = replace(speech, speaker=args.target or args.speaker, tokens=tokens)
        wav = system.decode_all([speech])[0]
        write_audio(output, wav, subtype=args.subtype)
        seconds = len(wav) / SAMPLE_RATE
        files.append({"output": str(output), "units": len(speech.units), "seconds": seconds})
        lines.append(f"{output}: {len(speech.units)} units, {seconds:.2f} s")
    require_written(*outputs)
    return common.report(args, {"files": files}, lines)
