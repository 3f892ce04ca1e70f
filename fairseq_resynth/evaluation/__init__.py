"""Measuring speech and units: metrics, runs, reports, listening tests, other codecs."""
