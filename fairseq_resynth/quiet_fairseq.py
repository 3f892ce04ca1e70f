"""Imports fairseq without what it does to the root logger.

One of its model files calls `logging.basicConfig(level=DEBUG)` on import, which would make every library
of a program that imports us print its debugging messages. Under fairseq's own commands nothing changes.
"""

import logging

__all__ = ["fairseq"]

_root = logging.getLogger()
_level, _handlers = _root.level, list(_root.handlers)

import fairseq  # noqa: E402
import fairseq.data  # noqa: E402

_root.setLevel(_level)
_root.handlers[:] = _handlers
