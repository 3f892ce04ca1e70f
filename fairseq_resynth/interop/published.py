"""A published unit vocoder: its files, and what its configuration and weights say it is."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.interop.weight_names import generator_name
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.unit_generator import UnitGenerator


@dataclass(frozen=True)
class Published:
    """A checkpoint and its configuration.

    Attributes:
        source: the weights' file.
        config: of `config.json`.
        weights: what the file has under `generator`.
        rest: what else it has.
    """

    source: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    rest: dict[str, Any] = field(default_factory=dict)


def find_weights(path: str | Path, patterns: Sequence[str]) -> Path:
    """Returns a file of weights: `path` itself, or the newest in the folder.

    Args:
        path: a file, or a folder.
        patterns: of file names, in the order in which they are looked for.

    Raises:
        FileNotFoundError: nothing there.
    """
    path = Path(path)
    if path.is_file():
        return path
    for pattern in patterns:
        found = sorted(p for p in path.glob(pattern) if p.is_file())
        if found:
            return found[-1]
    raise FileNotFoundError(
        f"{path} holds no {' or '.join(patterns)}: give the checkpoint's folder."
    )


def read_published(path: str | Path, config: str | Path | None = None) -> Published:
    """Reads a `g_*` or `model.pt` with its `config.json`.

    Args:
        path: the folder, or the file of weights.
        config: the configuration; None: `config.json` beside the weights.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: refused, cut short, or not of that layout.
    """
    source = find_weights(path, ("g_[0-9]*", "model.pt", "*.pt"))
    config = Path(config) if config else source.parent / "config.json"
    settings = read_json(config, "It must lie beside the weights; give another with --config.")
    if not isinstance(settings, dict):
        raise ValueError(f"{config} holds a {type(settings).__name__}, expected an object.")
    state = load_checkpoint(source, "a checkpoint of a unit vocoder (`generator`)")
    weights = state.pop("generator", None)
    if not isinstance(weights, dict) or not weights:
        raise ValueError(
            f"{source} has no `generator`; found {', '.join(map(str, list(state)[:8])) or 'nothing'}."
        )
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{source}: {name} is a {type(value).__name__}, expected a tensor.")
    if all(name.startswith("module.") for name in weights):  # saved from DataParallel
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return Published(source, settings, weights, state)


def build(
    published: Published, model: UnitHifiganSizes, streams: StreamSpec
) -> tuple[UnitGenerator, dict[str, str]]:
    """Builds the generator and gives it the published weights.

    Args:
        published: the vocoder; its `quantizer.*` is left out.
        model: its sizes.
        streams: its streams; a speaker table longer than `speakers` is cut to their number.

    Returns:
        (the generator in evaluation mode, the published name of each of our weights).

    Raises:
        ValueError: configuration and weights contradict each other; the first difference is named.
    """
    _check_width(published, model, streams)
    generator = build_vocoder(model, streams)
    weights = {k: v for k, v in published.weights.items() if not k.startswith("quantizer.")}
    blocks = len(model.resblock_kernel_sizes.split(","))
    names = {generator_name(name, blocks): name for name in weights}
    converted = {ours: weights[name] for ours, name in names.items()}
    for ours, rows in (("speaker", len(streams.speakers)), ("style", len(streams.styles))):
        key = f"{ours}_embedding.weight"
        if key in converted and rows and converted[key].size(0) > rows:
            converted[key] = converted[key][:rows]
    if "generator.conv_pre.weight" in converted:
        generator.generator.remove_weight_norm()
    _check_weights(published.source, generator, converted, names)
    generator.load_state_dict(converted)
    return generator.eval(), names


def _check_width(published: Published, model: UnitHifiganSizes, streams: StreamSpec) -> None:
    expected = UnitGenerator.frame_channels(
        streams.num_f0_codes,
        streams.f0_channels,
        len(streams.speakers),
        streams.speaker_dim,
        model.embedding_dim,
        len(streams.styles),
    )
    found = published.config.get("model_in_dim", expected)
    if found != expected:
        raise ValueError(
            f"the configuration of {published.source} contradicts itself: model_in_dim is {found}, and its "
            f"streams have {expected} channels."
        )


def _check_weights(
    source: Path, generator: UnitGenerator, converted: dict[str, Tensor], names: dict[str, str]
) -> None:
    expected = generator.state_dict()
    for ours, value in converted.items():
        if ours not in expected:
            raise ValueError(
                f"{source} contradicts its configuration: it holds {names[ours]}, for which the "
                "configuration has no place."
            )
        if value.shape != expected[ours].shape:
            raise ValueError(
                f"{source} contradicts its configuration: {names[ours]} is {tuple(value.shape)}, "
                f"the configuration makes it {tuple(expected[ours].shape)}."
            )
    missing = [ours for ours in expected if ours not in converted]
    if missing:
        name = re.sub(r"\.parametrizations\.weight\.original[01]", ".weight", missing[0])
        raise ValueError(
            f"{source} contradicts its configuration: {len(missing)} weights are missing, {name} "
            "for instance."
        )


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


def model_sizes(published: Published) -> UnitHifiganSizes:
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
    return UnitHifiganSizes(
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
