"""Show where the bits of a compressed file go.

resynth inspect speech.rsyn                            what its header says
resynth inspect speech.rsyn --bundle BUNDLE [--json] [--plot bits.png]
resynth inspect speech.rsyna --bundle BUNDLE --name a/b
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli.options import add_bundle, add_json, report, require_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("input", metavar="F.rsyn|F.rsyna", help="the file")
    add_bundle(parser, "the bundle that encoded it")
    parser.add_argument("--name", metavar="NAME", help="one member of an archive")
    parser.add_argument("--plot", metavar="PNG", help="draw bits over time; needs matplotlib")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the table, or the names of an archive."""
    from fairseq_resynth.codec import folders, inspection
    from fairseq_resynth.codec.format.archive import Archive
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    path = Path(args.input)
    if path.suffix == folders.ARCHIVE_SUFFIX and args.name is None:
        archive = Archive(path)
        summary = {
            "members": len(archive.names),
            "bytes": path.stat().st_size,
            "model": archive.identity.hex()[:8],
            "names": archive.names,
        }
        head = f"{len(archive.names)} members, {summary['bytes']} bytes, model {summary['model']}"
        report(args, summary, [head, *archive.names])
        return 0
    if not args.bundle and path.is_file():
        summary = inspection.header(path.read_bytes())
        hint = "the bits of its streams: give --bundle DIR, or set RESYNTH_BUNDLE"
        report(args, summary, [*(f"{name}: {value}" for name, value in summary.items()), hint])
        return 0
    codec = SpeechCodec.from_pretrained(require_bundle(args), decode_only=True)
    [(_, data, checksum)] = folders.coded_members(codec, path, args.name)
    found = inspection.inspect(codec.model, codec.identity, data, checksum)
    if args.plot:
        inspection.plot(found, args.plot)
    report(args, found.summary, inspection.table(found.summary))
    return 0
