"""fairseq models: `unit_hifigan`, `f0_vqvae`."""

from fairseq_resynth import quiet_fairseq  # noqa: F401
