"""Loading checkpoints that others released: the classes of their layout, nothing that could run code."""

import ast
import logging
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

_CONVOLUTIONS = re.compile(r"[\s\d()\[\],+*]+")


@contextmanager
def refusals(path: Path, what: str, allowed: Sequence[Any]) -> Iterator[None]:
    """Lets torch.load build `allowed` and turns what it says about other files into one sentence.

    Args:
        path: the checkpoint.
        what: what it should be, for the message.
        allowed: classes beside tensors and plain types.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another class in it, which is named; truncated; or another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, expected {what}")
    try:
        with torch.serialization.safe_globals(list(allowed)):
            yield
    except UnpicklingError as error:
        raise ValueError(_refusal(path, what, str(error))) from error
    except Exception as error:  # a foreign file can upset whatever reads it, in any way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path} is not readable as {what}: {reason}") from error


def _refusal(path: Path, what: str, message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found:
        return (
            f"{path} holds {found[1]}, which {what} does not have. The file was refused, since opening it "
            "could run code; nothing in it was run."
        )
    return f"{path} is not readable as {what}: {message.splitlines()[-1][:300]}"


def load_checkpoint(path: str | Path, what: str, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Loads a checkpoint on the CPU with `weights_only=True`; see `refusals` for arguments and errors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: refused, unreadable, or not a dictionary.
    """
    with refusals(Path(path), what, allowed):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected {what}")
    return state


def require_model(state: dict[str, Any], path: Path, model: str, task: str) -> None:
    """Checks what a fairseq checkpoint says it is, before fairseq builds it.

    fairseq evaluates `conv_feature_layers`, a string of the checkpoint, as Python: it must be a list of
    integer triples here, so that evaluating it cannot do anything else.

    Args:
        state: the checkpoint.
        path: for the messages.
        model: `_name` or `arch` of the model.
        task: name of the task.

    Raises:
        ValueError: another model or task, no configuration, or foreign text for the convolutions.
    """
    if not isinstance(state.get("model"), dict):
        raise ValueError(f"{path} holds no `model`; found {', '.join(map(str, list(state)[:8]))}")
    found_model, found_task, values = _configuration(state, path)
    if (found_model, found_task) != (model, task):
        raise ValueError(
            f"{path} holds a {found_model} of task {found_task}, expected a pretrained {model} ({task})"
        )
    text = values.get("conv_feature_layers")
    if text is not None and not _is_convolutions(text):
        raise ValueError(
            f"{path}: conv_feature_layers is {str(text)[:80]!r}, expected a list of integer triples. "
            "fairseq would run this text as Python; the file was refused."
        )


def _configuration(state: dict[str, Any], path: Path) -> tuple[Any, Any, Any]:
    """Returns the names of model and task, and the model's settings."""
    args, cfg = state.get("args"), state.get("cfg")
    try:
        if isinstance(args, Namespace):  # fairseq prefers it to cfg
            task = {"speech_pretraining": "audio_pretraining"}.get(args.task, args.task)
            return getattr(args, "_name", None) or args.arch, task, vars(args)
        return cfg["model"]["_name"], cfg["task"]["_name"], cfg["model"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say which model it holds: neither `args` nor `cfg.model._name`"
        ) from error


def _is_convolutions(text: Any) -> bool:
    if not isinstance(text, str) or not _CONVOLUTIONS.fullmatch(text):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return False
    nodes = (
        ast.Expression,
        ast.List,
        ast.Tuple,
        ast.BinOp,
        ast.Add,
        ast.Mult,
        ast.Load,
        ast.Constant,
    )
    return all(isinstance(node, nodes) and _is_small(node) for node in ast.walk(tree))


def _is_small(node: ast.AST) -> bool:
    return not isinstance(node, ast.Constant) or 0 < node.value < 10_000


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps fairseq, hydra and transformers from printing whole configurations while they build a model."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
