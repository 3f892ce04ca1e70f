"""Decompress speech, in its own or another voice, pitch and rate.

resynth decode speech.rsyn --bundle BUNDLE -o speech.wav
resynth decode DIR --bundle BUNDLE -o OUT --target NAME
resynth decode speech.rsyna --bundle BUNDLE -o OUT --name a/b
resynth decode speech.rsynp --conceal --bundle BUNDLE -o speech.wav      some packets are lost
cat speech.rsyn | resynth decode --stream --bundle BUNDLE -o - | aplay -f S16_LE -r 16000
"""

import argparse
import itertools
import sys
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("input F.rsyn|F.rsynp|DIR|F.rsyna", "file, packets, folder or archive", nargs="?")
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
    add("--conceal", "speak what arrived of packets, fill what is missing, and say which", False)
    add(
        "--gap",
        "how --conceal fills: the last sound fades out (default), or is held until the next packet",
        choices=("fade", "hold"),
    )
    add(
        "--window PACKETS",
        "with --stream: a missing packet is given up when more later ones than this have arrived (2)",
        type=int,
    )
    add.shared("--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Decodes and prints what was done; 1 if a file failed."""
    if args.stream == (args.input is not None):
        raise ValueError("give an input, or --stream to read from standard input, not both")
    if args.stream and (args.pitch is not None or args.rate != 1):
        raise ValueError("--pitch and --rate need the whole file: leave --stream out")
    if args.gap is not None and not args.conceal:
        raise ValueError("--gap is how --conceal fills what is missing: give --conceal too")
    if args.window is not None and not args.stream:
        raise ValueError(
            "--window is for packets that arrive with --stream; of a file all are there"
        )
    args.gap = (args.gap or "fade") if args.conceal else None
    args.window = 2 if args.window is None else args.window
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    codec = SpeechCodec.from_pretrained(
        common.require_bundle(args), device=args.device, decode_only=True
    )
    codec.resynthesizer.streams.check_tokens(common.given_tokens(args))
    return _stream(args, codec) if args.stream else _files(args, codec)


def _stream(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.codec import folders
    from fairseq_resynth.codec.format.packets import unframe_packets
    from fairseq_resynth.data.audio.pcm import to_pcm

    read = getattr(sys.stdin.buffer, "read1", sys.stdin.buffer.read)
    tokens, receiver = common.given_tokens(args), codec.receiver(args.window)
    first = sys.stdin.buffer.read(1)
    pieces = itertools.chain([first], iter(lambda: read(64), b""))
    packets = args.conceal or folders.has_packets(first)
    if packets:
        how = args.target, args.gap
        wavs = codec.decode_packet_stream(unframe_packets(pieces), receiver, *how, **tokens)
    else:
        wavs = codec.decode_stream(pieces, args.target, **tokens)
    with common.output_stream(args.out) as out:
        for wav in wavs:
            out.write(to_pcm(wav))
            out.flush()
    if packets:
        print(receiver.reception.text(), file=sys.stderr)
    return 0


def _decoder(args: argparse.Namespace, codec, receptions: dict):
    """The function that decodes a member, and notes in `receptions` what arrived of its packets."""
    from fairseq_resynth.codec.folders import has_packets
    from fairseq_resynth.codec.format.packets import unframe_packets

    speech, tokens = (args.target, args.pitch, args.rate), common.given_tokens(args)
    conceal = args.gap

    def decode(data: bytes, checksum: bool, name: str):
        if not conceal and not has_packets(data):
            return codec.decode(data, *speech, checksum, **tokens)
        packets = unframe_packets([data])
        wav, receptions[name] = codec.decode_packets(packets, *speech, conceal, **tokens)
        return wav

    return decode


def _files(args: argparse.Namespace, codec) -> int:
    from soundfile import SoundFileError

    from fairseq_resynth.codec import folders

    source, out = Path(args.input), Path(args.out)
    members = list(folders.coded_members(codec, source, args.name))
    how = {"target": args.target, "pitch": args.pitch, "rate": args.rate}
    how |= common.given_tokens(args) | ({"conceal": args.gap} if args.conceal else {})
    receptions: dict = {}
    decode = _decoder(args, codec, receptions)
    if len(members) == 1 and out.suffix.lower() in (".wav", ".flac"):
        [(name, data, checksum)] = members
        try:
            seconds = folders.write_speech(codec, decode(data, checksum, name), out)
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
        *(f"{name}: {reception.text()}" for name, reception in receptions.items()),
        *common.failure_lines(outcome.failed, "could not be decoded"),
    ]
    summary = {"out": str(out), **outcome.to_dict()}
    if receptions:
        summary["packets"] = {name: found.to_dict() for name, found in receptions.items()}
    return common.report(args, summary, lines, outcome.failed)
