"""What messages quote of inputs and of errors: in one line, and not too much of it."""

from collections.abc import Sequence


def shown(text: object, most: int = 300) -> str:
    """A text of an input, in one line of up to `most` characters."""
    return " ".join(str(text).split())[:most]


def one_line(error: Exception) -> str:
    """What an error says, or its name, in one line of up to 300 characters."""
    text = shown(error).rstrip(".")
    return f"{text} is missing" if isinstance(error, KeyError) else text or type(error).__name__


def first_names(names: Sequence[str], most: int = 20) -> str:
    """The first names, with an ellipsis if there are more than `most`."""
    return shown(", ".join(names[:most])) + (" …" if len(names) > most else "")
