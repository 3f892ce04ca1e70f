"""The `resynth` command: one file per verb, options and output only."""
