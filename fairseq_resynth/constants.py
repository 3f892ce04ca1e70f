"""Rates and hops that are the same in every room. What a model was trained on is in its `StreamSpec`."""

SAMPLE_RATE = 16000  # Hz
F0_HOP = 80  # samples between frames of F0: 200 Hz
F0_RATE = SAMPLE_RATE // F0_HOP  # Hz
