"""A trained content VQ-VAE: its units for `resynth quantize`, and with its decoder as a bundle."""

from pathlib import Path
from typing import Any

from fairseq_resynth.data.pitch.representations import weights_hash
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, load_bundle
from fairseq_resynth.inference.checkpoints import model_config, read_checkpoint
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.options import sizes_from
from fairseq_resynth.modules.quantizers.content_vqvae import (
    ContentVqvae,
    ContentVqvaeSizes,
    build_content_vqvae,
)


def is_content_checkpoint(state: dict[str, Any]) -> bool:
    """Whether a checkpoint is of `fairseq-train --arch content_vqvae`."""
    model = (state.get("cfg") or {}).get("model") or {}
    return model.get("_name") == "content_vqvae"


def content_bundle(path: str | Path, state: dict[str, Any] | None = None) -> Bundle:
    """Reads a checkpoint as a vocoder of units that makes them too.

    Args:
        path: of the checkpoint.
        state: what is in it, if it was read already.

    Raises:
        FileNotFoundError, ValueError: no such file, or not such a checkpoint.
    """
    path = Path(path)
    state = read_checkpoint(path) if state is None else state
    values = model_config(state, path, "content_vqvae")
    content = build_content_vqvae(sizes_from(ContentVqvaeSizes, values))
    weights, prefix = state["model"], "content_vqvae."
    content.load_state_dict(
        {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    )
    model = sizes_from(UnitHifiganSizes, values)
    units = {
        "feature_type": "vqvae",
        "vqvae_hash": weights_hash(content),
        "num_clusters": content.num_codes,
        "unit_hop": content.stride,
    }
    streams = StreamSpec(content.stride, content.num_codes, units=units)
    generator = build_vocoder(model, streams)
    decoder = {k: v for k, v in weights.items() if k.startswith("generator.")}
    decoder["unit_embedding.weight"] = content.quantizer.codebook
    generator.load_state_dict(decoder)
    return Bundle(generator.eval(), model, streams, content_vqvae=content.eval())


def load_content_vqvae(path: str | Path) -> ContentVqvae:
    """Loads the encoder and codebook of a checkpoint or a bundle.

    Raises:
        FileNotFoundError, ValueError: no such file, or there is none in it.
    """
    bundle = load_bundle(path) if Path(path).is_dir() else content_bundle(path)
    if bundle.content_vqvae is None:
        raise ValueError(f"the bundle {path} has no content VQ-VAE.")
    return bundle.content_vqvae
