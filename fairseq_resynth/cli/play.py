"""Serve a web page that changes the voice, pitch and rhythm of recordings, and shows and plays them.

    resynth play --bundle BUNDLE

Record with the microphone or choose a file. Uploads stay in the memory of this process. With --host other
machines can use the page too; their browsers then allow recording only over https.
"""

import argparse
import signal
import sys

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add.bundle()
    add("--host H", "address to serve at", "127.0.0.1")
    add("--port N", "port; 0: any free one", 8080)
    add("--max-upload MB", "largest upload in megabytes", 25.0)
    add("--max-seconds S", "longest recording in seconds", 30.0)
    add.shared("--content-checkpoint", "--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl+C."""
    _check(args)
    bundle = common.require_bundle(args)
    from fairseq_resynth.play.server import is_loopback
    from fairseq_resynth.play.sessions import PlaySession

    with _listen(args) as server:  # first: a model takes long to load
        server.session = PlaySession.load(
            bundle, args.content_checkpoint, args.device, args.max_seconds
        )
        if not is_loopback(args.host):
            print(
                f"warning: --host {args.host}: everyone who can reach this machine can use the page; it has "
                "no password and no encryption",
                file=sys.stderr,
            )
        common.report(args, {"url": server.url}, [f"{server.url}  (Ctrl+C ends)"])
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # What the model is at has to end before Python does; a second Ctrl+C does not wait.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return 0


def _listen(args: argparse.Namespace):
    from fairseq_resynth.play.server import PlayServer

    try:
        return PlayServer((args.host, args.port), round(args.max_upload * 1e6))
    except OSError as error:
        raise ValueError(
            f"cannot listen at {args.host}:{args.port}: {error.strerror}; give another --port (0: any)"
        ) from error


def _check(args: argparse.Namespace) -> None:
    if not args.host:
        raise ValueError("--host is empty, expected an address, such as 127.0.0.1")
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: expected 0 to 65535")
    if not 0.001 <= args.max_upload <= 1000:
        raise ValueError(f"--max-upload {args.max_upload}: expected 0.001 to 1000 megabytes")
    if not 1 <= args.max_seconds <= 600:
        raise ValueError(f"--max-seconds {args.max_seconds}: expected 1 to 600 seconds")
