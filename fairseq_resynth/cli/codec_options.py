"""Options that the codec's verbs share."""

import argparse
import os

VARIABLE = "RESYNTH_BUNDLE"


def add_bundle(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--bundle`, whose default is the environment variable RESYNTH_BUNDLE."""
    parser.add_argument(
        "--bundle",
        default=os.environ.get(VARIABLE),
        metavar="DIR",
        help=f"{what}; default: ${VARIABLE}",
    )


def require_bundle(args: argparse.Namespace) -> str:
    """Returns the bundle's folder.

    Raises:
        ValueError: none was given.
    """
    if not args.bundle:
        raise ValueError(f"give --bundle DIR, or set {VARIABLE}; `resynth export` makes bundles")
    return args.bundle
