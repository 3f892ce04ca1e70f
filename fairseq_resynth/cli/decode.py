"""Decompress speech, in its own or another voice, pitch and rate.

resynth decode speech.rsyn --bundle BUNDLE -o speech.wav
resynth decode DIR --bundle BUNDLE -o OUT --target NAME
resynth decode speech.rsyna --bundle BUNDLE -o OUT --name a/b
cat speech.rsyn | resynth decode --stream --bundle BUNDLE -o - | aplay -f S16_LE -r 16000
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("input F.rsyn|DIR|F.rsyna", "file, folder or archive", nargs="?")
    add("-o --out OUT", "wav, flac or folder; - for standard output, with --stream", required=True)
    add.bundle("the bundle that encoded it")
    add("--name NAME", "only this member of an archive")
    add("--target NAME", "output voice, a name or an index; default: the speaker's")
    add("--pitch P", "shift=+3st, scale=1.2 or flatten")
    add.shared("--rate")
    add.tokens()
    add(
        "--stream",
        "read from standard input as it arrives, and write 16-bit samples at 16 kHz",
        False,
    )
    add.shared("--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Decodes and prints what was done; 1 if a file failed."""
    if args.stream == (args.input is not None):
        raise ValueError("give an input, or --stream to read from standard input, not both")
    if args.stream and (args.pitch is not None or args.rate != 1):
        raise ValueError("--pitch and --rate need the whole file: leave --stream out")
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    codec = SpeechCodec.from_pretrained(
        common.require_bundle(args), device=args.device, decode_only=True
    )
    codec.resynthesizer.streams.check_tokens(common.given_tokens(args))
    return _stream(args, codec) if args.stream else _files(args, codec)


def _stream(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.data.audio.pcm import to_pcm

    read = getattr(sys.stdin.buffer, "read1", sys.stdin.buffer.read)
    out = sys.stdout.buffer if args.out == "-" else Path(args.out).open("wb")
    try:
        pieces, tokens = iter(lambda: read(64), b""), common.given_tokens(args)
        for wav in codec.decode_stream(pieces, args.target, **tokens):
            out.write(to_pcm(wav))
            out.flush()
    finally:
        if args.out != "-":
            out.close()
    return 0


def _files(args: argparse.Namespace, codec) -> int:
    from soundfile import SoundFileError

    from fairseq_resynth.codec import folders

    source, out = Path(args.input), Path(args.out)
    members = list(folders.coded_members(codec, source, args.name))
    tokens = common.given_tokens(args)
    how = {"target": args.target, "pitch": args.pitch, "rate": args.rate, **tokens}

    def decode(data: bytes, checksum: bool):
        return codec.decode(data, args.target, args.pitch, args.rate, checksum, **tokens)

    if len(members) == 1 and out.suffix.lower() in (".wav", ".flac"):
        [(_, data, checksum)] = members
        try:
            seconds = folders.write_speech(codec, decode(data, checksum), out)
        except (ValueError, OSError, SoundFileError) as error:
            raise ValueError(f"{source}: {error}") from error
        outcome = folders.CodecOutcome(1, seconds=seconds, bytes=len(data))
    else:
        with tqdm(total=len(members), desc="decode", unit="file", disable=len(members) < 2) as bar:
            outcome = folders.decode_all(codec, members, out, decode, how, bar.update)
    if len(members) == 1 and outcome.failed:
        raise ValueError(f"{source}: {next(iter(outcome.failed.values()))}")
    lines = [
        f"{outcome.written} decoded, {outcome.reused} reused, {outcome.seconds:.1f} s, in {out}",
        *common.failure_lines(outcome.failed, "could not be decoded"),
    ]
    return common.report(args, {"out": str(out), **outcome.to_dict()}, lines, outcome.failed)
