"""Measures generated speech against recordings, and shows what was measured.

`metrics/` has one family of metrics per file, `runs/` pairs files and measures them, `report/` writes the web
page, `listening/` makes listening tests, `codecs/` compares rate with distortion.
"""
