"""Discriminators, one family per file, and the registry of their names."""
