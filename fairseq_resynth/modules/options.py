"""Fields of a network's sizes that are options of the command line too, and how their text is read."""

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, TypeVar

Sizes = TypeVar("Sizes")


def option(default: Any, help_text: str) -> Any:
    """A dataclass field with a default and the help text that `fairseq-train --help` shows for it."""
    return field(default=default, metadata={"help": help_text})


def sizes_from(sizes_class: type[Sizes], values: Mapping[str, Any]) -> Sizes:
    """Builds sizes from those values of a configuration that they have fields for."""
    names = [each.name for each in fields(sizes_class) if each.name in values]  # type: ignore[arg-type]
    return sizes_class(**{name: values[name] for name in names})


def option_integers(text: str, name: str) -> list[int]:
    """The integers of "5,4,4,2,2". Raises ValueError, which names the option, for anything else."""
    try:
        return [int(word) for word in str(text).split(",")]
    except ValueError as error:
        raise ValueError(f"--{name} is {text!r}, expected integers as in 5,4,4,2,2.") from error
