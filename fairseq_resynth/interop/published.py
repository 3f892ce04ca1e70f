"""A published unit vocoder: its files, and what its configuration and weights say it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fairseq_resynth.data.files import read_json
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.interop.checkpoints import load_checkpoint
from fairseq_resynth.interop.weight_names import generator_name
from fairseq_resynth.models.unit_hifigan import UnitHifiganConfig, build_generator
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
    published: Published, model: UnitHifiganConfig, streams: Streams
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
    generator = build_generator(model, streams)
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


def _check_width(published: Published, model: UnitHifiganConfig, streams: Streams) -> None:
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
