"""What a kind of file is to the fuzzing: valid samples, how they are mutated, and their readers."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutations import (
    Mutation,
)


@dataclass(frozen=True)
class Kind:
    """A kind of file: `write` fills a folder with valid files, of which `target` is mutated by one of
    `changes` and then read by each of `readers`, which get its path; `count` times in the fast run."""

    write: Callable[[Path], Any]
    target: str
    readers: Sequence[Callable[[Path], Any]]
    changes: Sequence[Mutation]
    count: int = 50


def one(
    name: str,
    data: bytes | Callable[[], bytes],
    readers: Sequence[Callable],
    *changes: Mutation,
    count: int = 50,
) -> Kind:
    """A kind of one file."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data())

    return Kind(write, name, readers, changes, count)


def saved(save: Callable[[Any, io.BytesIO], Any], value: Any) -> bytes:
    """What `save` writes of a value."""
    stream = io.BytesIO()
    save(value, stream)
    return stream.getvalue()


def npy(value: Any, stream: io.BytesIO) -> None:
    """`numpy.save`, for `saved`."""
    np.save(stream, value)
