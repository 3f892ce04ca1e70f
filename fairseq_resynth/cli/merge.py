"""Join the parts that --shard left in DATA; usually the last shard to finish does this.

resynth merge DATA
"""

import argparse

from fairseq_resynth.cli import common
from fairseq_resynth.preparation.merge import merge


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA", "the data folder")
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Joins what is complete; 1 if a part is missing."""
    joined, waiting = merge(args.data)
    lines = [f"{name}: joined" for name in joined]
    lines += [
        f"{name}: not joined, shards {', '.join(them)} are missing"
        for name, them in waiting.items()
    ]
    return common.report(
        args, {"joined": joined, "missing": waiting}, lines or ["no parts to join"], waiting
    )
