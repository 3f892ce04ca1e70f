"""Open a page on this machine to change voice, pitch and rhythm of a recording, to look and to listen.

    resynth play --bundle BUNDLE

Record with the microphone or choose a file. What is uploaded stays in this process's memory. With --host
other machines reach the page too; a browser then lets it record only over https.
"""

import argparse
import sys

from fairseq_resynth.cli.options import add_json, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--bundle", required=True, metavar="B", help="folder, hub id or address")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen at (%(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8080, metavar="N", help="0: any free one (%(default)s)"
    )
    parser.add_argument(
        "--max-upload", type=float, default=25.0, metavar="MB", help="megabytes (%(default)s)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=30.0, metavar="S", help="of a recording (%(default)s)"
    )
    parser.add_argument(
        "--content-checkpoint", metavar="FILE", help="weights of the content encoder"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl+C."""
    _check(args)
    from fairseq_resynth.play.server import PlayServer, is_loopback
    from fairseq_resynth.play.sessions import PlaySession

    session = PlaySession.load(args.bundle, args.content_checkpoint, args.device, args.max_seconds)
    try:
        server = PlayServer((args.host, args.port), session, round(args.max_upload * 1e6))
    except OSError as error:
        raise ValueError(
            f"cannot listen at {args.host}:{args.port}: {error.strerror}; give another --port (0: any)"
        ) from error
    if not is_loopback(args.host):
        print(
            f"warning: --host {args.host}: whoever reaches this machine can use the page; there is no "
            "password and no encryption",
            file=sys.stderr,
        )
    with server:
        report(args, {"url": server.url}, [f"{server.url}  (Ctrl+C ends)"])
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: expected 0 to 65535")
    if not 0.001 <= args.max_upload <= 1000:
        raise ValueError(f"--max-upload {args.max_upload}: expected 0.001 to 1000 megabytes")
    if not 1 <= args.max_seconds <= 600:
        raise ValueError(f"--max-seconds {args.max_seconds}: expected 1 to 600 seconds")
