"""Show where the bits of a compressed file go.

resynth inspect speech.rsyn                            what its header says
resynth inspect speech.rsyn --bundle BUNDLE [--json] [--plot bits.png]
resynth inspect speech.rsyna --bundle BUNDLE --name a/b
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("input F.rsyn|F.rsyna", "the file")
    add.bundle("the bundle that encoded it")
    add("--name NAME", "only this member of an archive")
    add("--plot PNG", "draw the bits over time")
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Prints the table, or the names of an archive."""
    from fairseq_resynth.codec import folders, inspection
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    path = Path(args.input)
    if path.suffix == folders.ARCHIVE_SUFFIX and args.name is None:
        archive = folders.Archive(path)
        summary = {
            "members": len(archive.names),
            "bytes": path.stat().st_size,
            "model": archive.identity.hex()[:8],
            "names": archive.names,
        }
        head = f"{len(archive.names)} members, {summary['bytes']} bytes, model {summary['model']}"
        return common.report(args, summary, [head, *archive.names])
    if not args.bundle and path.is_file():
        summary = inspection.header(path.read_bytes())
        hint = "for the bits of each stream, give --bundle B or set RESYNTH_BUNDLE"
        return common.report(
            args, summary, [*(f"{name}: {value}" for name, value in summary.items()), hint]
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give one of its files")
    codec = SpeechCodec.from_pretrained(common.require_bundle(args), decode_only=True)
    [(_, data, checksum)] = folders.coded_members(codec, path, args.name)
    found = inspection.inspect(codec.model, codec.identity, data, checksum)
    if args.plot:
        inspection.plot(found, args.plot)
    return common.report(args, found.summary, inspection.table(found.summary))
