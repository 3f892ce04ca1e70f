"""Names of weights: those of speech-resynthesis and of fairseq's code HiFi-GAN, and ours."""

import re

import torch
from torch import Tensor

_EMBEDDINGS = {
    "dict.": "unit_embedding.",
    "f0_dict.": "f0_code_embedding.",
    "f0_quant_embed.": "f0_code_embedding.",
    "spkr.": "speaker_embedding.",
    "style.": "style_embedding.",
    "dur_predictor.": "duration_predictor.",
}
_NORMS = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
_SPECTRAL_NORMS = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}


def generator_name(name: str, blocks_per_stage: int) -> str:
    """Returns our name of one weight of a published unit generator.

    Args:
        name: `conv_pre.weight_g`, `ups.0.bias`, `resblocks.4.convs1.2.weight_v`, `dict.weight`, …
        blocks_per_stage: residual blocks after each upsampling: the published list is flat, ours nested.
    """
    for published, ours in _EMBEDDINGS.items():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    if match := re.match(r"resblocks\.(\d+)\.convs([12])\.(.*)", name):
        stage, block = divmod(int(match[1]), blocks_per_stage)
        kind = "dilated" if match[2] == "1" else "plain"
        name = f"resblocks.{stage}.{block}.{kind}.{match[3]}"
    name = re.sub(r"^ups\.", "upsamples.", name)
    head, _, leaf = name.rpartition(".")
    return f"generator.{head}.{_NORMS.get(leaf, leaf)}"


def f0_vqvae_name(name: str) -> str | None:
    """Returns our name of one weight of the published F0 quantiser, None for what we keep elsewhere."""
    name = name.replace("level_blocks.0.", "")
    if name == "vq.k":
        return "quantizer.codebook"
    if match := re.match(r"encoder\.model\.(\d)\.0\.(\w+)$", name):
        return f"encoder.downsamples.{match[1]}.0.{match[2]}"
    if match := re.match(r"encoder\.model\.(\d)\.1\.model\.(\d)\.model\.(\d\.\w+)$", name):
        return f"encoder.downsamples.{match[1]}.1.{match[2]}.layers.{match[3]}"
    if match := re.match(r"encoder\.model\.\d\.(\w+)$", name):
        return f"encoder.out.{match[1]}"
    if match := re.match(r"decoder\.model\.0\.(\w+)$", name):
        return f"decoder.pre.{match[1]}"
    if match := re.match(r"decoder\.model\.(\d)\.0\.model\.(\d)\.model\.(\d\.\w+)$", name):
        return f"decoder.upsamples.{int(match[1]) - 1}.0.{match[2]}.layers.{match[3]}"
    if match := re.match(r"decoder\.model\.(\d)\.1\.(\w+)$", name):
        return f"decoder.upsamples.{int(match[1]) - 1}.1.{match[2]}"
    return name if name.startswith("decoder.out.") else None


def convert_generator(state: dict[str, Tensor], blocks_per_stage: int) -> dict[str, Tensor]:
    """Renames a published generator's weights, the F0 quantiser inside it (`quantizer.*`) left out."""
    return {
        generator_name(name, blocks_per_stage): value
        for name, value in state.items()
        if not name.startswith("quantizer.")
    }


def _with_running_sums(converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds the state of the codebook that the published quantisers did not keep."""
    codebook = converted["quantizer.codebook"]
    converted["quantizer.running_sum"] = codebook.clone()
    converted["quantizer.running_count"] = codebook.new_ones(len(codebook))
    converted["quantizer.num_steps"] = torch.ones(())
    return converted


def convert_f0_vqvae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames a published F0 quantiser's weights and adds the running sums that it did not keep.

    Raises:
        ValueError: a weight that the quantiser does not have, or no codebook.
    """
    converted = {}
    for name, value in state.items():
        ours = f0_vqvae_name(name.removeprefix("quantizer."))
        if ours is None:
            raise ValueError(f"{name} is no weight of an F0 quantiser.")
        converted[ours] = value
    if "quantizer.codebook" not in converted:
        raise ValueError("the F0 quantiser has no codebook, vq.level_blocks.0.k.")
    return _with_running_sums(converted)


def convert_content_vqvae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the `code_encoder.*` and `code_vq.*` of a published VQ-VAE over raw audio.

    Raises:
        ValueError: a weight that it does not have, or no codebook.
    """
    converted = {}
    for name, value in state.items():
        ours = f0_vqvae_name(name.removeprefix("code_"))
        if ours is None:
            raise ValueError(f"{name} is no weight of a content VQ-VAE.")
        converted[ours] = value
    if "quantizer.codebook" not in converted:
        raise ValueError("the content VQ-VAE has no codebook, code_vq.level_blocks.0.k.")
    return _with_running_sums(converted)


def published_name(name: str, blocks_per_stage: int, f0_codes: str = "f0_quant_embed.") -> str:
    """Inverse of `generator_name` for fairseq's code HiFi-GAN; weight norm in its old names.

    Args:
        name: ours.
        blocks_per_stage: residual blocks after each upsampling.
        f0_codes: prefix of the pitch codes' table.
    """
    for published, ours in _EMBEDDINGS.items():
        if name.startswith(ours) and published != "f0_dict.":
            published = f0_codes if ours == "f0_code_embedding." else published
            return published + name.removeprefix(ours)
    name = name.removeprefix("generator.")
    if match := re.match(r"resblocks\.(\d+)\.(\d+)\.(dilated|plain)\.(.*)", name):
        block = int(match[1]) * blocks_per_stage + int(match[2])
        kind = "convs1" if match[3] == "dilated" else "convs2"
        name = f"resblocks.{block}.{kind}.{match[4]}"
    return re.sub(r"^upsamples\.", "ups.", name)


def discriminator_name(group: str, name: str, siblings: dict[str, Tensor]) -> str:
    """Returns our name of one weight of a published discriminator.

    Args:
        group: `mpd` or `msd`.
        name: `discriminators.0.convs.1.weight_g`, …
        siblings: the group's state: with a `weight_orig` beside it, a `weight_v` is spectral norm's.
    """
    prefix = {"mpd": "periods.", "msd": "scales."}[group]
    head, _, leaf = name.replace("discriminators.", prefix, 1).rpartition(".")
    spectral = name.rpartition(".")[0] + ".weight_orig" in siblings
    norms = _SPECTRAL_NORMS if spectral else _NORMS
    return f"{head}.{norms.get(leaf, leaf)}"


def parameter_names(weights: dict[str, Tensor]) -> list[str]:
    """Returns the names of a published state dict that are parameters, in its order; the rest are buffers."""

    def is_buffer(name: str) -> bool:
        head, _, leaf = name.rpartition(".")
        if leaf in ("weight_u", "weight_v") and f"{head}.weight_orig" in weights:
            return True
        return leaf == "k" and "vq.level_blocks" in head

    return [name for name in weights if not is_buffer(name)]
