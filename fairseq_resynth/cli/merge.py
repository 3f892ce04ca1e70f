"""Join the parts that --shard left in DATA; the last shard to finish does so by itself.

resynth merge DATA
"""

import argparse

from fairseq_resynth.cli.options import add_json, report
from fairseq_resynth.preparation.merge import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("data", metavar="DATA", help="the data folder")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Joins what is complete; 1 if a part is missing."""
    joined, waiting = merge(args.data)
    lines = [f"{name}: joined" for name in joined]
    lines += [
        f"{name}: not joined, shards {', '.join(them)} are missing"
        for name, them in waiting.items()
    ]
    report(args, {"joined": joined, "missing": waiting}, lines or ["no parts to join"])
    return 1 if waiting else 0
