"""Files that are written whole or not at all, shards, workers, resuming, and safe loading of checkpoints."""
