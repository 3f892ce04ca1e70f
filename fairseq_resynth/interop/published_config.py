"""What the configuration of a published unit vocoder says, checked before anything is built from it."""

import math
from collections.abc import Sequence
from typing import Any

from fairseq_resynth.data.audio import SAMPLE_RATE
from fairseq_resynth.interop.published import Published
from fairseq_resynth.models.unit_hifigan import UnitHifiganConfig

REQUIRED = (
    "upsample_rates",
    "upsample_kernel_sizes",
    "upsample_initial_channel",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "num_embeddings",
    "embedding_dim",
)
# Conditioning of forks that has no counterpart here.
UNKNOWN = ("f0_feats", "gst", "gst_dim", "lambda_commit")


def model_sizes(published: Published) -> UnitHifiganConfig:
    """Returns the generator's sizes.

    Raises:
        ValueError: a key is missing, or a generator that is none of HiFi-GAN V1's kind.
    """
    config = published.config
    missing = [key for key in REQUIRED if key not in config]
    if missing:
        raise ValueError(
            f"the configuration of {published.source} lacks {', '.join(missing)}: it is none of a "
            "unit vocoder."
        )
    _check_types(published)
    if str(config.get("resblock", "1")) != "1":
        raise ValueError(
            f"resblock is {config['resblock']!r}, expected '1': HiFi-GAN V1's or V2's."
        )
    if config.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(f"sampling_rate is {config['sampling_rate']} Hz, expected {SAMPLE_RATE}.")
    unknown = [key for key in UNKNOWN if config.get(key)]
    if unknown:
        raise ValueError(
            f"{published.source} is conditioned by {', '.join(unknown)}: not supported."
        )
    durations = config.get("dur_predictor_params") or {}
    return UnitHifiganConfig(
        embedding_dim=config["embedding_dim"],
        upsample_rates=_join(config["upsample_rates"]),
        upsample_kernel_sizes=_join(config["upsample_kernel_sizes"]),
        upsample_initial_channel=config["upsample_initial_channel"],
        resblock_kernel_sizes=_join(config["resblock_kernel_sizes"]),
        resblock_dilation_sizes=";".join(_join(row) for row in config["resblock_dilation_sizes"]),
        duration_predictor=bool(durations),
        duration_hidden_dim=durations.get("var_pred_hidden_dim", 128),
        duration_kernel_size=durations.get("var_pred_kernel_size", 3),
        duration_dropout=durations.get("var_pred_dropout", 0.5),
        duration_condition="none",
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_size, value))


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_sizes, value))


_KINDS = {
    **dict.fromkeys(
        ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"), _is_sizes
    ),
    "resblock_dilation_sizes": _is_rows,
    **dict.fromkeys(("upsample_initial_channel", "num_embeddings", "embedding_dim"), _is_size),
    **dict.fromkeys(("code_hop_size", "num_speakers", "num_styles", "embedder_dim"), _is_size),
    "f0_quant_num_bin": lambda value: value is None or value == 0 or _is_size(value),
    "f0_quantizer": lambda value: not value or isinstance(value, dict),
    "dur_predictor_params": lambda value: not value or isinstance(value, dict),
    "f0_stats": lambda value: not value or isinstance(value, str),
}


def _check_types(published: Published) -> None:
    for key, is_right in _KINDS.items():
        if key in published.config and not is_right(published.config[key]):
            raise ValueError(
                f"the configuration of {published.source} is wrong: {key} is {published.config[key]!r}."
            )
    durations = published.config.get("dur_predictor_params") or {}
    for key in ("var_pred_hidden_dim", "var_pred_kernel_size"):
        if not _is_size(durations.get(key, 3)):
            raise ValueError(
                f"the configuration of {published.source} is wrong: {key} is {durations[key]!r}."
            )


def _join(values: Sequence[int]) -> str:
    return ",".join(str(int(value)) for value in values)


def unit_hop(published: Published, at_f0_rate: bool) -> int:
    """Returns the samples of a unit.

    Args:
        published: the vocoder.
        at_f0_rate: whether its frames may be shorter than a unit, those of its F0.

    Raises:
        ValueError: `code_hop_size` contradicts the upsampling.
    """
    frame = math.prod(published.config["upsample_rates"])
    hop = published.config.get("code_hop_size", frame)
    if hop % frame or (hop != frame and not at_f0_rate):
        raise ValueError(
            f"the configuration of {published.source} contradicts itself: code_hop_size is {hop} samples, "
            f"and the upsample rates multiply to {frame}."
        )
    return hop
