"""Bundles from the checkpoints of fairseq-train, loaded without running any code that is in them."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fairseq_resynth.data.storage.checkpoints import load_checkpoint, weights_hash
from fairseq_resynth.data.storage.files import file_hash
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

EXPECTED = "a checkpoint of fairseq-train"
CONTENT = "content_vqvae"


def _read(
    path: str | Path, *names: str, ema: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint of one of the models named, with averaged weights if asked, and its configuration."""
    state = load_checkpoint(path, EXPECTED)
    config = (state.get("cfg") or {}).get("model") or {}
    found = config.get("_name")
    if found not in names or "model" not in state:
        raise ValueError(
            f"{path} holds {'the model ' + repr(found) if found else 'no fairseq model'}, expected "
            f"{EXPECTED} --arch {'|'.join(names)}."
        )
    if ema:
        state["model"] = state.get("extra_state", {}).get("ema")
        if state["model"] is None:
            raise ValueError(f"{path} has no averaged weights: train with --store-ema.")
    return state, config


def _load(module: nn.Module, weights: dict[str, Tensor], prefix: str, path: str | Path) -> None:
    """Loads the weights whose names begin with `prefix`, and sets evaluation mode."""
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit its configuration: {error}") from error
    module.eval()


def load_unit_generator(
    path: str | Path, ema: bool = False
) -> tuple[UnitGenerator, StreamSpec, UnitVocoderSizes]:
    """The unit vocoder of a checkpoint of `fairseq-train --task unit_resynthesis`, its streams and its sizes.

    `ema` takes the exponentially averaged weights of --store-ema. Raises FileNotFoundError or ValueError if
    the file does not exist or is no such checkpoint.
    """
    return _unit_generator(*_read(path, *ARCHITECTURES, ema=ema), path)


def _unit_generator(
    state: dict[str, Any], config: dict[str, Any], path: str | Path
) -> tuple[UnitGenerator, StreamSpec, UnitVocoderSizes]:
    sizes = sizes_from(
        sizes_class(config["_name"]), with_duration_condition(config, state["model"])
    )
    streams = StreamSpec.from_dict(state["task_state"]["streams"])
    generator = build_vocoder(sizes, streams)
    _load(generator, state["model"], "unit_generator.", path)
    return generator, streams, sizes


def load_f0_vqvae(path: str | Path) -> tuple[F0Vqvae, F0VqvaeSizes]:
    """The F0 quantizer of a checkpoint of `fairseq-train --task f0_quantization`, and its sizes."""
    state, config = _read(path, "f0_vqvae")
    sizes = sizes_from(F0VqvaeSizes, config)
    f0_vqvae = F0Vqvae(sizes)
    _load(f0_vqvae, state["model"], "f0_vqvae.", path)
    return f0_vqvae, sizes


def build_bundle(
    path: str | Path,
    f0_path: str | Path | None = None,
    kmeans: str | Path | None = None,
    ema: bool = False,
) -> Bundle:
    """Makes a bundle of checkpoints that belong together; raises FileNotFoundError or ValueError otherwise.

    Args:
        path: of the unit vocoder; or of a content VQ-VAE, which contains a vocoder and its units' encoder.
        f0_path: of the F0 quantizer that made the vocoder's pitch codes.
        kmeans: file of the k-means that made the vocoder's units.
        ema: whether to use the averaged weights of --store-ema.
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
    content = build_content_vqvae(sizes_from(ContentVqvaeSizes, config))
    _load(content, weights, "content_vqvae.", path)
    units = {
        "feature_type": "vqvae",
        "vqvae_hash": weights_hash(content),
        "num_clusters": content.num_codes,
        "unit_hop": content.stride,
    }
    streams = StreamSpec(content.stride, content.num_codes, units=units)
    sizes = sizes_from(UnitHifiganSizes, config)
    generator = build_vocoder(sizes, streams)
    # The decoder of the VQ-VAE is a vocoder whose unit embedding is the codebook.
    decoder = {k: v for k, v in weights.items() if k.startswith("generator.")}
    _load(generator, {**decoder, "unit_embedding.weight": content.quantizer.codebook}, "", path)
    return Bundle(generator, sizes, streams, content_vqvae=content)


def load_f0_quantizer(name: str | Path) -> F0Vqvae:
    """The F0 quantizer of a checkpoint, or of a bundle anywhere that `find_bundle` looks.

    Raises FileNotFoundError or ValueError if there is no such file, or no F0 quantizer in it.
    """
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
