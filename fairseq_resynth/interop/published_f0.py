"""The F0 quantiser of speech-resynthesis: in a file of its own, or inside a vocoder."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fairseq_resynth.interop.weight_names import convert_f0_vqvae
from fairseq_resynth.models.f0_vqvae import F0VqvaeConfig, build_f0_vqvae
from fairseq_resynth.modules.f0_vqvae import F0Vqvae


def infer_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Returns the sizes of a quantiser whose configuration is not there, from its weights (`quantizer.*`)."""
    codebook = weights.get("quantizer.vq.level_blocks.0.k")
    first = weights.get("quantizer.encoder.level_blocks.0.model.0.0.weight")
    if codebook is None or first is None:
        return {}
    encoder = {"width": len(first), "downs_t": [4], "strides_t": [2], "depth": 4}
    return {
        "f0_vq_params": {"l_bins": len(codebook), "emb_width": codebook.size(1), "mu": 0.99},
        "f0_encoder_params": {**encoder, "dilation_growth_rate": 3},
    }


def f0_quantizer(
    source: Path, config: dict[str, Any], weights: dict[str, Tensor]
) -> tuple[F0Vqvae, F0VqvaeConfig]:
    """Builds an F0 quantiser from a configuration of `f0_vqvae`'s form.

    Raises:
        ValueError: sizes that ours cannot have, or weights that contradict them.
    """
    try:
        encoder, codebook = config["f0_encoder_params"], config["f0_vq_params"]
        model = F0VqvaeConfig(
            num_codes=codebook["l_bins"],
            code_dim=codebook["emb_width"],
            width=encoder["width"],
            num_downsamples=encoder["downs_t"][0],
            codebook_decay=codebook["mu"],
        )
        f0_vqvae = build_f0_vqvae(model)
        plain = (encoder["strides_t"], encoder["depth"], encoder["dilation_growth_rate"])
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the F0 quantiser of {source} lacks {error} in its configuration."
        ) from error
    if plain != ([2], 4, 3) or encoder.get("m_conv", 1.0) != 1.0:
        raise ValueError(
            f"the F0 quantiser of {source} has strides, depth and dilation growth {plain}, "
            "expected ([2], 4, 3)."
        )
    load_checked(source, f0_vqvae, convert_f0_vqvae(weights), "F0 quantiser")
    return f0_vqvae.eval(), model


def load_checked(source: Path, module: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Gives a module its weights.

    Raises:
        ValueError: they do not fit; the first difference is named.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip()
        raise ValueError(
            f"the {what} of {source} contradicts its configuration: {first}"
        ) from error
