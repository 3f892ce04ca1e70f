"""Metrics of resynthesised speech; each compares wavs or frames and knows no model."""
