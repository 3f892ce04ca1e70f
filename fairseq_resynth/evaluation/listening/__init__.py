"""Listening tests: the page for listeners, and the results."""
