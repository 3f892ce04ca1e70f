"""fairseq models: `unit_hifigan`, `unit_vocos`, `f0_vqvae`."""

from fairseq_resynth import quiet_fairseq  # noqa: F401
