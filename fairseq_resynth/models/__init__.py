"""fairseq models: `unit_hifigan`, `unit_vocos`, `unit_source_filter`, `f0_vqvae`."""

from fairseq_resynth import compat  # noqa: F401
