"""Evaluations: pairing files, measuring them, storing and summarizing the figures."""
