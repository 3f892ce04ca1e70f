"""Files that are written completely or not at all, and hashes of their contents."""

import contextlib
import hashlib
import io
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def unique_name() -> str:
    """A name that no other process has, also where containers share a file system and process ids."""
    return f"{socket.gethostname()[:16]}.{os.getpid()}.{secrets.token_hex(6)}"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it over `path` when the block succeeds. The temporary
    name keeps the suffix, since writers such as soundfile choose a format by it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:100]}.{unique_name()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, hint: str = "") -> Any:
    """Reads JSON. `hint`, how to make the file, ends the message if it is missing or is not JSON."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {hint}".strip())
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}. {hint}".strip()) from error


def array_header(shape: tuple[int, ...], kind: str) -> bytes:
    """The first bytes of a `.npy` file, for arrays that are written in pieces; `kind` as in "<f4"."""
    header, layout = io.BytesIO(), {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, layout)
    return header.getvalue()


def file_hash(path: str | Path, start: int = 0, length: int | None = None) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file, or of `length` bytes from `start`."""
    digest, path = hashlib.sha256(), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as stream:
        stream.seek(start)
        left = path.stat().st_size if length is None else length
        while block := stream.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()[:16]
