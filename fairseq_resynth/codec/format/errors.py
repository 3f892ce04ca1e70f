"""The one error of the codec."""


class CodecError(ValueError):
    """A compressed file is damaged, foreign, made by another model, or larger than allowed."""
