"""Metrics, one family per file, and their catalogue."""
