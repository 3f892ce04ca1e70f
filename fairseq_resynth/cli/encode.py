"""Compress speech to about 150 bit/s.

resynth encode speech.wav --bundle BUNDLE -o speech.rsyn
resynth encode DIR --bundle BUNDLE -o OUT              NAME.rsyn for each file
resynth encode DIR --bundle BUNDLE -o speech.rsyna     one archive of all
ffmpeg -i IN -f s16le -ar 16000 -ac 1 - | resynth encode --stream --bundle BUNDLE -o - > speech.rsyn
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("input IN.wav|DIR", "what to compress, in any audio format", nargs="?")
    add(
        "-o --out OUT",
        "file, folder or archive (.rsyna); - for standard output, with --stream",
        required=True,
    )
    add.bundle("a bundle with entropy.safetensors")
    add.shared("--content-checkpoint")
    speaker = add.one_of()
    speaker.shared("--speaker")
    speaker("--speaker-from-folder", "the name of a file's folder is the speaker", False)
    add("--stream", "read 16-bit mono samples at 16 kHz, or such a WAV, from standard input", False)
    add(
        "--block SECONDS",
        "encode in blocks of this length, as --stream does (with --stream: 1.0)",
        type=float,
    )
    add.shared("--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Encodes and prints what was done; 1 if a file failed."""
    if args.stream == (args.input is not None):
        raise ValueError("give an input, or --stream to read from standard input, not both")
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    codec = SpeechCodec.from_pretrained(
        common.require_bundle(args), args.content_checkpoint, args.device
    )
    return _stream(args, codec) if args.stream else _files(args, codec)


def _stream(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.codec.streaming import read_pcm
    from fairseq_resynth.data.storage.files import atomic_path

    pieces = codec.encode_stream(read_pcm(sys.stdin.buffer), args.speaker, args.block or 1.0)
    if args.out == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return 0
    with atomic_path(args.out) as temporary, temporary.open("wb") as out:
        for piece in pieces:
            out.write(piece)
    return 0


def _files(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.codec import folders
    from fairseq_resynth.codec.format.archive import write_archive
    from fairseq_resynth.data.storage.files import atomic_path

    source, out = Path(args.input), Path(args.out)
    sources = folders.audio_sources(source, out, args.speaker, args.speaker_from_folder)

    def encode(item: folders.Source) -> bytes:
        if args.block:
            return codec.encode_blocks(item.path, item.speaker, args.block)
        return codec.encode(item.path, item.speaker)

    archived = out.suffix == folders.ARCHIVE_SUFFIX
    single = source.is_file() and not archived and not out.is_dir()
    folder = None if archived or single else out
    with tqdm(total=len(sources), desc="encode", unit="file", disable=len(sources) < 2) as bar:
        outcome, members = folders.encode_all(
            codec, sources, folder, encode, {"block": args.block}, bar.update
        )
    if archived and members:
        outcome.bytes = write_archive(out, codec.identity, members)
    elif single and members:
        with atomic_path(out) as temporary:
            temporary.write_bytes(members[0][1])
    lines = [
        f"{outcome.written} encoded, {outcome.reused} reused, {outcome.bytes} bytes in {out}",
        *common.failure_lines(outcome.failed, "could not be encoded"),
    ]
    summary = {key: value for key, value in outcome.to_dict().items() if key != "seconds"}
    common.report(args, {"out": str(out), **summary}, lines)
    return 1 if outcome.failed else 0
