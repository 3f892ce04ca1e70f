"""Speech from compressed files, in its own or another voice, pitch and rate.

resynth decode speech.rsyn --bundle BUNDLE -o speech.wav
resynth decode DIR --bundle BUNDLE -o OUT --speaker NAME
resynth decode speech.rsyna --bundle BUNDLE -o OUT --name a/b
cat speech.rsyn | resynth decode --stream --bundle BUNDLE -o - | aplay -f S16_LE -r 16000
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli.options import add_bundle, add_json, failure_lines, report, require_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("input", nargs="?", metavar="F.rsyn|DIR|F.rsyna", help="what to speak")
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        metavar="OUT",
        help="wav, flac or folder; -: with --stream",
    )
    add_bundle(parser, "the bundle that encoded it")
    parser.add_argument("--name", metavar="NAME", help="one member of an archive")
    parser.add_argument("--speaker", metavar="S", help="another voice: name or index")
    parser.add_argument("--pitch", metavar="P", help="shift=+3st, scale=1.2 or flatten")
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="R", help="of speaking, 0.25 to 4"
    )
    parser.add_argument("--style", metavar="NAME", help="for a model with styles")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="from standard input; 16-bit samples at 16 kHz come out",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Decodes and prints what was done; 1 if a file failed."""
    if args.stream == (args.input is not None):
        raise ValueError("give an input, or --stream to read from standard input, not both")
    if args.stream and (args.pitch is not None or args.rate != 1):
        raise ValueError("--pitch and --rate need the whole file: leave --stream out")
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    codec = SpeechCodec.from_pretrained(require_bundle(args), device=args.device, decode_only=True)
    if args.style and not codec.resynthesizer.streams.styles:
        raise ValueError("--style needs a model with styles, and this bundle has none.")
    return _stream(args, codec) if args.stream else _files(args, codec)


def _stream(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.codec.streaming import to_pcm

    read = getattr(sys.stdin.buffer, "read1", sys.stdin.buffer.read)
    out = sys.stdout.buffer if args.out == "-" else Path(args.out).open("wb")
    try:
        for wav in codec.decode_stream(iter(lambda: read(64), b""), args.speaker, style=args.style):
            out.write(to_pcm(wav))
            out.flush()
    finally:
        if args.out != "-":
            out.close()
    return 0


def _files(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.codec import folders

    source, out = Path(args.input), Path(args.out)
    members = list(folders.coded_members(codec, source, args.name))
    single = len(members) == 1 and out.suffix.lower() in (".wav", ".flac")

    def target(name: str) -> Path:
        return out if single else out / f"{name}.wav"

    with tqdm(total=len(members), desc="decode", unit="file", disable=len(members) < 2) as bar:
        outcome = folders.decode_all(
            members,
            target,
            lambda data, checksum: codec.decode(
                data, args.speaker, args.pitch, args.rate, checksum, args.style
            ),
            codec.resynthesizer.streams.sample_rate,
            bar.update,
        )
    if len(members) == 1 and outcome.failed:
        raise ValueError(f"{source}: {next(iter(outcome.failed.values()))}")
    lines = [
        f"{outcome.written} decoded, {outcome.seconds:.1f} s, in {out}",
        *failure_lines(outcome.failed, "could not be decoded"),
    ]
    summary = {key: value for key, value in vars(outcome).items() if key != "reused"}
    report(args, {"out": str(out), **summary}, lines)
    return 1 if outcome.failed else 0
