"""From units or recordings to speech: bundles, checkpoints, the decoder, synthesis of whole sets."""
