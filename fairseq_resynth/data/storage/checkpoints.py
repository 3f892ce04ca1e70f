"""The one loader of checkpoints: tensors, plain types and classes that the caller names, never code."""

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from fairseq_resynth.data.storage.files import unpacked_size
from fairseq_resynth.data.storage.messages import shown


@contextmanager
def refusals(path: Path, what: str, allowed: Sequence[Any]) -> Iterator[None]:
    """Lets other projects' readers, which call `torch.load` themselves, build the classes `allowed` in
    addition to tensors and plain types. Raises FileNotFoundError if the file does not exist, and ValueError
    if it holds another class, which is named, or is not readable as `what`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, expected {what}")
    try:
        # torch stores its members without compression, but would also unpack compressed ones.
        if unpacked_size(path) > path.stat().st_size:
            raise ValueError("it would unpack to more bytes than the file has")
        with torch.serialization.safe_globals(list(allowed)):
            yield
    except Exception as error:  # a foreign file can make its reader fail in any way
        message = str(error)
        if isinstance(error, UnpicklingError):
            if found := re.search(r"GLOBAL ([\w.]+)", message):
                raise ValueError(
                    f"{path} holds {found[1]}, which {what} does not have. The file was refused, since "
                    "opening it could run code; nothing in it was run."
                ) from error
            message = message.rpartition("\n")[2]  # what precedes is advice to load it unsafely
        reason = shown(message) or type(error).__name__
        raise ValueError(f"{path} is not readable as {what}: {reason}") from error


def load_checkpoint(path: str | Path, what: str, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Loads a dictionary on the CPU with `weights_only=True`; arguments and errors as `refusals` has them."""
    with refusals(Path(path), what, allowed):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected {what}")
    return state


@contextmanager
def quiet() -> Iterator[None]:
    """Silences fairseq, hydra and transformers, which print whole configurations while they build a model."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def weights_hash(module: torch.nn.Module) -> str:
    """16 hexadecimal digits of a module's weights, the same for a checkpoint and for a bundle."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
