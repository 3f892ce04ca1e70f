"""fairseq's configuration of a training, as its checkpoints hold it."""

from collections.abc import Sequence
from typing import Any

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf


def training_configuration(arguments: Sequence[str]) -> dict[str, Any]:
    """The `cfg` of a checkpoint that `fairseq-train DATA` writes with these arguments, as plain values."""
    parsed = options.parse_args_and_arch(options.get_training_parser(), ["DATA", *arguments])
    config = convert_namespace_to_omegaconf(parsed)
    return OmegaConf.to_container(config, resolve=True, enum_to_str=True)
