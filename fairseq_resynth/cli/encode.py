"""Compress speech to about 150 bit/s.

resynth encode speech.wav --bundle BUNDLE -o speech.rsyn
resynth encode DIR --bundle BUNDLE -o OUT              NAME.rsyn for each file
resynth encode DIR --bundle BUNDLE -o speech.rsyna     one archive of all
resynth encode speech.wav --packets 1 --bundle BUNDLE -o speech.rsynp    any packet may be lost
ffmpeg -i IN -f s16le -ar 16000 -ac 1 - | resynth encode --stream --bundle BUNDLE -o - > speech.rsyn
"""

import argparse
import shutil
import sys
import tempfile
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
    add(
        "--stream",
        "read 16-bit mono samples at 16 kHz, or a WAV of any rate, from standard input",
        False,
    )
    add(
        "--block SECONDS",
        "encode in blocks of this length, as --stream does (with --stream: 1.0)",
        type=float,
    )
    add(
        "--packets SECONDS",
        "write packets of this length that decode on their own, .rsynp, for radio and messaging",
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
    from fairseq_resynth.codec.format.packets import frame_packets
    from fairseq_resynth.data.audio.pcm import PcmReader

    audio = PcmReader(sys.stdin.buffer).resampled()
    if args.packets is not None:
        packets = codec.encode_packet_stream(audio, args.speaker, args.packets, args.block)
        pieces = frame_packets(packets)
    else:
        pieces = codec.encode_stream(audio, args.speaker, args.block or 1.0)
    with common.output_stream(args.out) as out:
        for piece in pieces:
            out.write(piece)
            out.flush()
    return 0


def _files(args: argparse.Namespace, codec) -> int:
    from fairseq_resynth.codec import folders
    from fairseq_resynth.conversion.folders import find_inputs
    from fairseq_resynth.data.storage.files import atomic_path

    source, out = Path(args.input), Path(args.out)
    inputs = find_inputs(source, out)
    archived = out.suffix == folders.ARCHIVE_SUFFIX
    if archived and args.packets is not None:
        raise ValueError(f"{out}: an archive holds whole files; give a folder for --packets")
    single = source.is_file() and not archived and not out.is_dir()
    how = args.speaker, args.speaker_from_folder, args.block, args.packets
    hidden = len(inputs) < 2
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=len(inputs), desc="encode", unit="file", disable=hidden) as bar,
    ):
        # What an archive is made of stays until it is written, so that a killed command goes on
        members = out.with_name(f".{out.name}.members")
        folder = members if archived else Path(scratch) if single else out
        outcome = folders.encode_all(codec, inputs, folder, *how, bar.update)
        names = [name for name, path in inputs.items() if str(path) not in outcome.failed]
        suffix = folders.SUFFIX if args.packets is None else folders.PACKETS_SUFFIX
        files = {name: folder / f"{name}{suffix}" for name in names}
        if archived and files:
            contents = ((name, file.read_bytes()) for name, file in files.items())
            outcome.bytes = folders.write_archive(out, codec.identity, contents)
        elif single and files:
            with atomic_path(out) as temporary:
                shutil.copyfile(files[names[0]], temporary)
        if archived:
            shutil.rmtree(members, ignore_errors=True)
    lines = [
        f"{outcome.written} encoded, {outcome.reused} reused, {outcome.bytes} bytes in {out}",
        *common.failure_lines(outcome.failed, "could not be encoded"),
    ]
    summary = {key: value for key, value in outcome.to_dict().items() if key != "seconds"}
    return common.report(args, {"out": str(out), **summary}, lines, outcome.failed)
