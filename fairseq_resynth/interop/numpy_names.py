"""Names that numpy 2 dropped and fairseq 0.12 still uses."""

import types

import numpy as np


def restore() -> None:
    """Gives `np.compat.long` back, which fairseq's language models need for --sample-break-mode eos."""
    if not hasattr(np, "compat"):
        np.compat = types.SimpleNamespace(long=int)
