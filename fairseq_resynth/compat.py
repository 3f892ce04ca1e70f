"""fairseq made importable and quiet; whatever needs fairseq imports this module first.

One of fairseq's model files calls `logging.basicConfig(level=DEBUG)` on import, which would make every
library of a program that imports us print its debugging messages. fairseq's own commands are not affected.
"""

import logging
import types

import numpy as np

_root = logging.getLogger()
_level, _handlers = _root.level, list(_root.handlers)

try:
    import fairseq  # noqa: E402
    import fairseq.data  # noqa: E402
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("fairseq"):
        raise
    raise ModuleNotFoundError(
        "training and fairseq's own content encoders need fairseq, which is not installed. Its package "
        "`ve-fairseq` exists for Python 3.11 and 3.12; everything else works without it.",
        name=error.name,
    ) from error

_root.setLevel(_level)
_root.handlers[:] = _handlers

__all__ = ["fairseq", "restore_numpy_names"]


def restore_numpy_names() -> None:
    """Restores `np.compat.long`, which fairseq's language models need for --sample-break-mode eos.

    numpy 2 dropped it and fairseq 0.12 still uses it.
    """
    if not hasattr(np, "compat"):
        np.compat = types.SimpleNamespace(long=int)
