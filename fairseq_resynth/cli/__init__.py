"""The `resynth` command: one file a verb, argparse and progress only."""
