"""Changing voice, pitch and rhythm of recordings."""
