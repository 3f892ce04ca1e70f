"""fairseq models: the unit vocoders of `modules.architectures`, `f0_vqvae` and `content_vqvae`."""

from fairseq_resynth import compat  # noqa: F401
