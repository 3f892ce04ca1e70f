"""Names of weights: those of speech-resynthesis and of fairseq's code HiFi-GAN, and ours."""

import re

import torch
from torch import Tensor

_TABLES = {
    "dict.": "unit_embedding.",
    "f0_dict.": "f0_code_embedding.",  # speech-resynthesis
    "f0_quant_embed.": "f0_code_embedding.",  # fairseq
    "spkr.": "speaker_embedding.",
    "style.": "style_embedding.",  # Expresso, textlesslib
    "lang.": "language_embedding.",  # Seamless
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
_VQVAE = {
    r"vq\.k": r"quantizer.codebook",
    r"encoder\.model\.(\d)\.0\.(\w+)": r"encoder.downsamples.\1.0.\2",
    r"encoder\.model\.(\d)\.1\.model\.(\d)\.model\.(\d\.\w+)": r"encoder.downsamples.\1.1.\2.layers.\3",
    r"encoder\.model\.\d\.(\w+)": r"encoder.out.\1",
    r"decoder\.model\.0\.(\w+)": r"decoder.pre.\1",
    r"decoder\.model\.(\d)\.0\.model\.(\d)\.model\.(\d\.\w+)": r"decoder.upsamples.\1.0.\2.layers.\3",
    r"decoder\.model\.(\d)\.1\.(\w+)": r"decoder.upsamples.\1.1.\2",
    r"(decoder\.out\..*)": r"\1",
}


def generator_name(name: str, blocks_per_stage: int) -> str:
    """Our name of a weight of a published unit generator, such as `resblocks.4.convs1.2.weight_v`.

    The published list of residual blocks is flat, ours nested: `blocks_per_stage` after each upsampling.
    """
    for published, ours in _TABLES.items():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    if match := re.match(r"resblocks\.(\d+)\.convs([12])\.(.*)", name):
        stage, block = divmod(int(match[1]), blocks_per_stage)
        kind = "dilated" if match[2] == "1" else "plain"
        name = f"resblocks.{stage}.{block}.{kind}.{match[3]}"
    name = re.sub(r"^ups\.", "upsamples.", name)
    head, _, leaf = name.rpartition(".")
    return f"generator.{head}.{_NORMS.get(leaf, leaf)}"


def published_name(name: str, blocks_per_stage: int, f0_codes: str = "f0_quant_embed.") -> str:
    """Inverse of `generator_name`, but for the two parts of weight norm, whose names stay.

    `f0_codes` is the prefix of the table of pitch codes: fairseq's, or `f0_dict.`.
    """
    for published, ours in _TABLES.items():
        if name.startswith(ours):
            published = f0_codes if ours == "f0_code_embedding." else published
            return published + name.removeprefix(ours)
    name = name.removeprefix("generator.")
    if match := re.match(r"resblocks\.(\d+)\.(\d+)\.(dilated|plain)\.(.*)", name):
        block = int(match[1]) * blocks_per_stage + int(match[2])
        kind = "convs1" if match[3] == "dilated" else "convs2"
        name = f"resblocks.{block}.{kind}.{match[4]}"
    return re.sub(r"^upsamples\.", "ups.", name)


def _vqvae_name(name: str) -> str | None:
    name = name.replace("level_blocks.0.", "")
    for published, ours in _VQVAE.items():
        if match := re.fullmatch(published, name):
            # Stage 0 of the published decoder is its first convolution, which has a name of its own here.
            stage = r"(?<=upsamples\.)\d"
            return re.sub(stage, lambda number: str(int(number[0]) - 1), match.expand(ours))
    return None


def convert_vqvae(state: dict[str, Tensor], prefix: str, what: str) -> dict[str, Tensor]:
    """Renames the weights of a published VQ-VAE, and adds the running sums, which it did not store.

    Their names begin with `quantizer.` (the F0 quantizer) or `code_` (the VQ-VAE over raw audio); `what`
    names it in messages. Raises ValueError for an unknown weight, or if there is no codebook.
    """
    converted = {}
    for name, value in state.items():
        ours = _vqvae_name(name.removeprefix(prefix))
        if ours is None:
            raise ValueError(f"found the weight {name}, which the {what} does not have.")
        converted[ours] = value
    if "quantizer.codebook" not in converted:
        raise ValueError(f"the {what} has no codebook, vq.level_blocks.0.k.")
    codebook = converted["quantizer.codebook"]
    return {
        **converted,
        "quantizer.running_sum": codebook.clone(),
        "quantizer.running_count": codebook.new_ones(len(codebook)),
        "quantizer.num_steps": torch.ones(()),
    }


def discriminator_name(group: str, name: str, siblings: dict[str, Tensor]) -> str:
    """Our name of a weight such as `discriminators.0.convs.1.weight_g` in the group `mpd` or `msd`.

    `siblings` are all weights of the group: `weight_v` is a part of weight norm, but of spectral norm if the
    same layer has a `weight_orig`.
    """
    head, _, leaf = name.rpartition(".")
    norms = _SPECTRAL_NORMS if f"{head}.weight_orig" in siblings else _NORMS
    prefix = {"mpd": "periods.", "msd": "scales."}[group]
    return f"{head.replace('discriminators.', prefix, 1)}.{norms.get(leaf, leaf)}"


def parameter_names(weights: dict[str, Tensor]) -> list[str]:
    """The names in a published state dict that are parameters, in its order; the others are buffers."""

    def is_buffer(name: str) -> bool:
        head, _, leaf = name.rpartition(".")
        if leaf in ("weight_u", "weight_v"):
            return f"{head}.weight_orig" in weights
        return leaf == "k" and "vq.level_blocks" in head

    return [name for name in weights if not is_buffer(name)]
