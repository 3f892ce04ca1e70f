"""Print the folder of the installed plugin: fairseq-train DATA --user-dir "$(resynth user-dir)" …"""

import argparse
from pathlib import Path

import fairseq_resynth
from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """The verb has no options."""


def run(args: argparse.Namespace) -> int:
    """Prints one path."""
    print(Path(fairseq_resynth.__file__).parent)
    return 0
