"""Imports every built-in metric, so that each registers itself; the order is the report's."""

from fairseq_resynth.evaluation import (  # noqa: F401, I001
    signal_metrics,
    intelligibility,
    speaker,
    quality,
    unit_metrics,
)
