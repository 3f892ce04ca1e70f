"""Bit rates, and rate against distortion beside other codecs."""
