"""Models out of fairseq's checkpoints, loaded without running anything that is in them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.architectures import (
    ARCHITECTURES,
    UnitVocoderSizes,
    build_vocoder,
    sizes_class,
    with_duration_condition,
)
from fairseq_resynth.modules.options import sizes_from
from fairseq_resynth.modules.quantizers.f0_vqvae import F0Vqvae, F0VqvaeSizes, build_f0_vqvae
from fairseq_resynth.modules.unit_generator import UnitGenerator


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, cut short, or one that would run code when loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is refused, it holds more than tensors: {reason}") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is no checkpoint, or is cut short: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(
            f"{path} holds a {type(state).__name__}, expected a checkpoint's dictionary."
        )
    return state


def model_config(state: dict[str, Any], path: Path, *names: str) -> dict[str, Any]:
    """Returns a checkpoint's model settings.

    Raises:
        ValueError: not of one of the models named.
    """
    config = (state.get("cfg") or {}).get("model") or {}
    found = config.get("_name")
    if found not in names or "model" not in state:
        raise ValueError(
            f"{path} holds {'the model ' + repr(found) if found else 'no fairseq model'}, expected a "
            f"checkpoint of `fairseq-train … --arch {'|'.join(names)}`."
        )
    return config


def _weights(state: dict[str, Any], prefix: str, path: Path, ema: bool) -> dict[str, torch.Tensor]:
    weights = state["model"]
    if ema:
        weights = state.get("extra_state", {}).get("ema")
        if weights is None:
            raise ValueError(f"{path} has no averaged weights: train with --store-ema.")
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def load_unit_generator(
    path: str | Path, ema: bool = False
) -> tuple[UnitGenerator, StreamSpec, UnitVocoderSizes]:
    """Loads a unit vocoder.

    Args:
        path: checkpoint of `fairseq-train --task unit_resynthesis`.
        ema: the exponentially averaged weights of --store-ema.

    Returns:
        (the generator in evaluation mode, the streams it was trained on, its sizes).

    Raises:
        FileNotFoundError, ValueError: no such file, or not such a checkpoint.
    """
    path = Path(path)
    state = read_checkpoint(path)
    config = model_config(state, path, *ARCHITECTURES)
    config = with_duration_condition(config, state["model"])
    cfg = sizes_from(sizes_class(config["_name"]), config)
    streams = StreamSpec.from_dict(state["task_state"]["streams"])
    generator = build_vocoder(cfg, streams)
    generator.load_state_dict(_weights(state, "unit_generator.", path, ema))
    return generator.eval(), streams, cfg


def load_f0_vqvae(path: str | Path) -> tuple[F0Vqvae, F0VqvaeSizes]:
    """Loads an F0 quantiser.

    Args:
        path: checkpoint of `fairseq-train --task f0_quantization`.

    Returns:
        (the quantiser in evaluation mode, its sizes).

    Raises:
        FileNotFoundError, ValueError: no such file, or not such a checkpoint.
    """
    path = Path(path)
    state = read_checkpoint(path)
    cfg = sizes_from(F0VqvaeSizes, model_config(state, path, "f0_vqvae"))
    f0_vqvae = build_f0_vqvae(cfg)
    f0_vqvae.load_state_dict(_weights(state, "f0_vqvae.", path, ema=False))
    return f0_vqvae.eval(), cfg
