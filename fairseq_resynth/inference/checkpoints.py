"""Bundles from checkpoints of fairseq-train, loaded without running any code that is in them."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_resynth.data.speaker_vectors import DESCRIPTION, parse_vectors
from fairseq_resynth.data.storage.checkpoints import load_checkpoint, weights_hash
from fairseq_resynth.data.storage.files import file_hash, read_object, reading
from fairseq_resynth.data.storage.messages import first_names, one_line
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, load_bundle
from fairseq_resynth.inference.hub import is_checkpoint
from fairseq_resynth.modules.architectures import (
    ARCHITECTURES,
    UnitHifiganSizes,
    UnitVocoderSizes,
    build_vocoder,
    sizes_class,
    with_duration_condition,
)
from fairseq_resynth.modules.options import sizes_from
from fairseq_resynth.modules.quantizers import (
    ContentVqvae,
    ContentVqvaeSizes,
    F0Vqvae,
    F0VqvaeSizes,
    build_content_vqvae,
)
from fairseq_resynth.modules.unit_generator import UnitGenerator

Module = TypeVar("Module", bound=nn.Module)
Vocoder = tuple[UnitGenerator, StreamSpec, UnitVocoderSizes]
EXPECTED = "a checkpoint of fairseq-train"
CONTENT = "content_vqvae"


def _read(
    path: str | Path, *names: str, ema: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint of one of the models named, with averaged weights if asked, and its configuration."""
    state = load_checkpoint(path, EXPECTED)
    with reading(path, EXPECTED):
        config = (state.get("cfg") or {}).get("model") or {}
        found = config.get("_name")
        averaged = state.get("extra_state", {}).get("ema") if ema else None
    if found not in names or not isinstance(state.get("model"), dict):
        raise ValueError(
            f"{path} holds {'the model ' + repr(found) if found else 'no fairseq model'}, expected "
            f"{EXPECTED} --arch {'|'.join(names)}."
        )
    if ema:
        state["model"] = averaged
        if averaged is None:
            raise ValueError(f"{path} has no averaged weights: train with --store-ema.")
    return state, config


def _load(module: Module, weights: dict[str, Tensor], prefix: str, path: str | Path) -> Module:
    """Loads the weights whose names begin with `prefix`; returns the module in evaluation mode."""
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: the weights do not fit its configuration: {one_line(error)}"
        ) from error
    return module.eval()


def load_unit_generator(path: str | Path, ema: bool = False) -> Vocoder:
    """The unit vocoder of a checkpoint of `fairseq-train --task unit_resynthesis`, its streams and its
    sizes. `ema` takes the averaged weights of --store-ema. Raises FileNotFoundError or ValueError for other
    files."""
    return _unit_generator(*_read(path, *ARCHITECTURES, ema=ema), path)


def _unit_generator(state: dict[str, Any], config: dict[str, Any], path: str | Path) -> Vocoder:
    weights = state["model"]
    with reading(path, EXPECTED):
        sizes = sizes_from(sizes_class(config["_name"]), with_duration_condition(config, weights))
        streams = StreamSpec.from_dict(state["task_state"]["streams"])
        generator = _load(build_vocoder(sizes, streams), weights, "unit_generator.", path)
    return generator, streams, sizes


def load_f0_vqvae(path: str | Path) -> tuple[F0Vqvae, F0VqvaeSizes]:
    """The F0 quantizer of a checkpoint of `fairseq-train --task f0_quantization`, and its sizes."""
    state, config = _read(path, "f0_vqvae")
    with reading(path, EXPECTED):
        sizes = sizes_from(F0VqvaeSizes, config)
        return _load(F0Vqvae(sizes), state["model"], "f0_vqvae.", path), sizes


def build_bundle(
    path: str | Path,
    f0_path: str | Path | None = None,
    kmeans: str | Path | None = None,
    ema: bool = False,
) -> Bundle:
    """Makes a bundle of checkpoints that belong together; raises FileNotFoundError or ValueError otherwise.

    `path` is that of the unit vocoder, or of a content VQ-VAE, which contains a vocoder and its units'
    encoder; `f0_path` and `kmeans` made the vocoder's pitch codes and units; `ema` takes averaged weights.
    """
    state, config = _read(path, *ARCHITECTURES, CONTENT, ema=ema)
    if config["_name"] == CONTENT:
        if f0_path or kmeans:
            raise ValueError(
                f"{path} is a content VQ-VAE, which needs no F0 quantizer and no k-means."
            )
        return _content_bundle(state["model"], config, path)
    generator, streams, sizes = _unit_generator(state, config, path)
    f0_vqvae, f0_sizes = load_f0_vqvae(f0_path) if f0_path else (None, None)
    if f0_vqvae is not None:
        _check_hash("F0 quantizer", f0_path, weights_hash(f0_vqvae), streams.f0_codes, "vqvae_hash")
    if kmeans is not None:
        _check_hash("k-means", kmeans, file_hash(kmeans), streams.units, "kmeans_hash")
    return Bundle(generator, sizes, streams, f0_vqvae, f0_sizes, Path(kmeans) if kmeans else None)


def _check_hash(what: str, path: str | Path, found: str, description: dict, key: str) -> None:
    expected = description.get(key)
    if expected and expected != found:
        raise ValueError(
            f"the {what} {path} has hash {found}, the model was trained with {expected}: give the {what} "
            "that made its data."
        )


def _content_bundle(weights: dict[str, Tensor], config: dict[str, Any], path: str | Path) -> Bundle:
    with reading(path, EXPECTED):
        content = build_content_vqvae(sizes_from(ContentVqvaeSizes, config))
        content = _load(content, weights, "content_vqvae.", path)
        units = {
            "feature_type": "vqvae",
            "vqvae_hash": weights_hash(content),
            "num_clusters": content.num_codes,
            "unit_hop": content.stride,
        }
        streams = StreamSpec(content.stride, content.num_codes, units=units)
        sizes = sizes_from(UnitHifiganSizes, config)
        # The decoder of the VQ-VAE is a vocoder whose unit embedding is the codebook.
        decoder = {k: v for k, v in weights.items() if k.startswith("generator.")}
        decoder["unit_embedding.weight"] = content.quantizer.codebook
        generator = _load(build_vocoder(sizes, streams), decoder, "", path)
    return Bundle(generator, sizes, streams, content_vqvae=content)


def load_f0_quantizer(name: str | Path) -> F0Vqvae:
    """The F0 quantizer of a checkpoint, or of a bundle anywhere that `find_bundle` looks. Raises
    FileNotFoundError or ValueError if there is no such file, or no F0 quantizer in it."""
    if is_checkpoint(name):
        return load_f0_vqvae(name)[0]
    f0_vqvae = load_bundle(name).f0_vqvae
    if f0_vqvae is None:
        raise ValueError(f"the bundle {name} has no F0 quantizer.")
    return f0_vqvae


def load_content_vqvae(name: str | Path) -> ContentVqvae:
    """The encoder and codebook of a content VQ-VAE; arguments and errors as `load_f0_quantizer`."""
    if is_checkpoint(name):
        state, config = _read(name, CONTENT)
        return _content_bundle(state["model"], config, name).content_vqvae
    content_vqvae = load_bundle(name).content_vqvae
    if content_vqvae is None:
        raise ValueError(f"the bundle {name} has no content VQ-VAE.")
    return content_vqvae


def with_speaker_vectors(bundle: Bundle, data: str | Path) -> Bundle:
    """A new bundle whose table of speakers is replaced by a linear map of their mean vectors to its rows.

    The known speakers sound the same except for rounding. Other vectors are mapped between the rows: good for
    voices near the known ones and as a start of training on vectors, no replacement for that training. `data`
    holds the `speaker_vectors.json` of every speaker of the table. Raises FileNotFoundError if it does not
    exist, and ValueError for no table, a speaker without a vector, or more speakers than dimensions.
    """
    path = Path(data) / DESCRIPTION
    made_by = f"Make it with `resynth speakers {data}`."
    found = read_object(path, made_by, means=dict, speaker_dim=int)
    streams = bundle.streams
    if streams is None or not streams.speakers or streams.speaker_dim:
        raise ValueError("--speaker-vectors: the model has no table of speakers to replace.")
    missing = [name for name in streams.speakers if name not in found["means"]]
    if missing:
        raise ValueError(f"{path} lacks the model's speakers {first_names(missing)}.")
    if len(streams.speakers) > found["speaker_dim"]:
        raise ValueError(
            f"{path}: {found['speaker_dim']} dimensions cannot distinguish {len(streams.speakers)} speakers."
        )
    means = {name: found["means"][name] for name in streams.speakers}
    vectors = np.stack(list(parse_vectors(means, found["speaker_dim"]).values()))
    generator = copy.deepcopy(bundle.generator)
    generator.speaker_embedding = _fit_linear(vectors, generator.speaker_embedding)
    streams = dataclasses.replace(
        streams, speaker_dim=found["speaker_dim"], speaker_vectors={**found, "means": means}
    )
    return dataclasses.replace(bundle, generator=generator, streams=streams, identity="")


def _fit_linear(vectors: np.ndarray, table: nn.Embedding) -> nn.Linear:
    """The linear map of least norm that maps each of (S, D) vectors to its row of the (S, E) table."""
    rows = table.weight.detach().cpu().double().numpy()
    inputs, outputs = vectors.astype(np.float64).mean(0), rows.mean(0)
    weight = np.linalg.pinv(vectors - inputs) @ (rows - outputs)
    layer = nn.Linear(vectors.shape[1], rows.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.copy_(torch.from_numpy(outputs - inputs @ weight))
    return layer.eval()
