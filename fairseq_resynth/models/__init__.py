"""fairseq models: the networks of `modules` under the names that --arch takes."""

from fairseq_resynth import compat  # noqa: F401
