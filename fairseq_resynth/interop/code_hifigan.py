"""fairseq's, textlesslib's and Seamless' code HiFi-GAN as bundles, and bundles as fairseq's."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_resynth.data.storage.files import (
    atomic_path,
    require_written,
    write_json,
    write_text,
)
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.interop.published_checkpoints import (
    LANGUAGES,
    ImportOptions,
    Published,
    build,
    model_sizes,
    read_published,
    table_names,
    unit_hop,
)
from fairseq_resynth.interop.weight_names import published_name
from fairseq_resynth.modules.architectures import UnitHifiganSizes, arch_of
from fairseq_resynth.modules.options import option_integers
from fairseq_resynth.modules.unit_generator import UnitGenerator


def import_code_hifigan(path: str | Path, options: ImportOptions | None = None) -> Bundle:
    """Reads a `model.pt` or `g_*` with its `config.json`, or Seamless' `vocoder_v2.pt`; see
    `import_speech_resynthesis`."""
    options = options or ImportOptions()
    published = read_published(path, options.config)
    if LANGUAGES in published.weights:
        published = _from_seamless(published)
    model, config = model_sizes(published), published.config
    bins, has_f0 = config.get("f0_quant_num_bin") or 0, bool(config.get("f0"))
    hop, num_units = unit_hop(published, has_f0), config["num_embeddings"]
    embedder = bool(config.get("multispkr") and config.get("embedder_params"))
    speakers, tokens = table_names(published, options, embedder)
    streams = StreamSpec(
        unit_hop=hop,
        num_units=num_units,
        f0_code_hop=options.f0_code_hop or config.get("f0_code_hop") or hop,
        num_f0_codes=bins if has_f0 else 0,
        speakers=speakers,
        units={"feature_type": "unknown", "num_clusters": num_units, "unit_hop": hop},
        f0_codes={"num_codes": bins} if has_f0 and bins else {},
        f0_channels=int(has_f0 and not bins),
        speaker_dim=config.get("embedder_dim", 256) if embedder else 0,
        tokens=tokens,
    )
    generator, _ = build(published, model, streams)
    return Bundle(generator, model, streams)


# Sizes of Seamless' vocoders, which its code has, unless a configuration says others.
_SEAMLESS_SIZES = {
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
}


def _from_seamless(published: Published) -> Published:
    """The vocoder of Seamless (Barrault et al., 2023) in the layout of fairseq's.

    Its frames are [language | units | speaker], and the embeddings of language and speaker narrower than that
    of units: here they are filled up with zeros, as is the first convolution, which changes no sample. Raises
    ValueError if weights are missing, or do not fit each other or their configuration.
    """
    source, weights = published.source, dict(published.weights)
    settings = published.config.get("model_config", published.config)
    try:
        (languages, language_width), (speakers, speaker_width), (units, width) = (
            weights[name].shape for name in (LANGUAGES, "spkr.weight", "dict.weight")
        )
        for name in (LANGUAGES, "spkr.weight"):
            weights[name] = _widened(weights[name], width)
        for name in {"conv_pre.weight", "conv_pre.weight_v"} & set(weights):
            widths = (language_width, width, speaker_width)
            language, of_units, speaker = weights[name].split(widths, dim=1)
            parts = (of_units, _widened(speaker, width), _widened(language, width))
            weights[name] = torch.cat(parts, dim=1)
        names = settings.get("lang_spkr_idx_map") or {}
        one = {name: [row] for name, row in names.get("multilingual", {}).items()}
        row_names = {
            "languages": _row_names(one),
            "speakers": _row_names(names.get("multispkr", {}), numbered=True),
        }
        durations = settings.get("dur_predictor_params")
        if durations is None and "dur_predictor.conv1.0.weight" in weights:
            hidden, _, kernel = weights["dur_predictor.conv1.0.weight"].shape
            durations = {"var_pred_hidden_dim": hidden, "var_pred_kernel_size": kernel}
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{source} is not readable as Seamless' vocoder: {one_line(error)}"
        ) from error
    sizes = {
        "num_embeddings": units,
        "embedding_dim": width,
        "model_in_dim": 3 * width,
        "multispkr": True,
        "num_speakers": speakers,
        "multilanguage": True,
        "num_languages": languages,
        "dur_predictor_params": durations,
        "row_names": row_names,
    }
    return Published(source, {**_SEAMLESS_SIZES, **settings, **sizes}, weights)


def _widened(weights: Tensor, width: int) -> Tensor:
    """Weights with zeros after their channels (the second axis), up to a width."""
    if weights.size(1) > width:
        raise ValueError(f"an embedding has {weights.size(1)} channels, that of units {width}")
    missing = weights.new_zeros(weights.size(0), width - weights.size(1), *weights.shape[2:])
    return torch.cat([weights, missing], dim=1)


def _row_names(rows: Mapping[str, Sequence[int]], numbered: bool = False) -> list[str]:
    """Names of the rows of a table, from {name: its rows}: `eng`, or if `numbered`, `eng_0`, `eng_1`."""
    named = {
        row: f"{name}_{place}" if numbered else name
        for name, of_name in rows.items()
        for place, row in enumerate(of_name)
    }
    return [named.get(row, str(row)) for row in range(max(named, default=-1) + 1)]


def _config(bundle: Bundle) -> dict[str, Any]:
    """The `config.json` that the `CodeHiFiGANVocoder` of fairseq and textlesslib reads."""
    model: UnitHifiganSizes = bundle.model
    streams, generator = bundle.streams, bundle.generator.generator
    config = {
        "resblock": "1",
        "upsample_rates": list(generator.upsample_rates),
        "upsample_kernel_sizes": [layer.kernel_size[0] for layer in generator.upsamples],
        "upsample_initial_channel": model.upsample_initial_channel,
        "resblock_kernel_sizes": option_integers(
            model.resblock_kernel_sizes, "resblock-kernel-sizes"
        ),
        "resblock_dilation_sizes": [
            option_integers(row, "resblock-dilation-sizes")
            for row in model.resblock_dilation_sizes.split(";")
        ],
        "num_embeddings": streams.num_units,
        "embedding_dim": model.embedding_dim,
        "model_in_dim": generator.conv_pre.in_channels,
        "sampling_rate": streams.sample_rate,
        "code_hop_size": streams.unit_hop,
        "hop_size": 256,
        "num_mels": 80,
    }
    if streams.has_speaker:
        config["multispkr"] = "from_input_file"
    if streams.speaker_dim:
        config |= {"embedder_params": True, "embedder_dim": streams.speaker_dim}
    elif streams.speakers:
        config["num_speakers"] = len(streams.speakers)
    if styles := streams.tokens.get("style"):
        config |= {"multistyle": "from_input_file", "num_styles": len(styles)}
    if streams.has_pitch:
        config |= {"f0": True, "f0_quant_num_bin": streams.num_f0_codes}
    if streams.num_f0_codes:
        config["f0_code_hop"] = streams.f0_code_hop  # ours: codes are repeated to the frames' rate
    if model.duration_predictor and not bundle.generator.durations_need_speaker:
        config["dur_predictor_params"] = {
            "encoder_embed_dim": model.embedding_dim,
            "var_pred_hidden_dim": model.duration_hidden_dim,
            "var_pred_kernel_size": model.duration_kernel_size,
            "var_pred_dropout": model.duration_dropout,
        }
    return config


def _weights(generator: UnitGenerator, blocks_per_stage: int) -> dict[str, Tensor]:
    """The weights by fairseq's names, float32 on the CPU, their norms unfolded into two parts."""
    norms = {
        f"generator.{name}.weight"
        for name, module in generator.generator.named_modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
    }
    weights = {}
    for name, value in generator.state_dict().items():
        if generator.durations_need_speaker and name.startswith("duration_predictor."):
            continue  # fairseq's predictor has no input for a speaker
        value = value.detach().float().cpu().clone()
        published = published_name(name, blocks_per_stage)
        if name in norms:
            head = published.removesuffix("weight")
            size = value.flatten(1).norm(dim=1).view(-1, *[1] * (value.dim() - 1))
            weights[f"{head}weight_g"] = size
            # A direction of length 0 would divide by 0; with a size of 0 any other gives the same.
            weights[f"{head}weight_v"] = torch.where(size > 0, value, torch.ones_like(value))
        else:
            weights[published] = value
    return weights


def export_code_hifigan(bundle: Bundle, outdir: str | Path) -> dict[str, Any]:
    """Writes `model.pt`, `config.json` and, if the model has them, names of rows and the F0 quantizer.

    The bundle's weight norm is folded into its weights. Returns the content of `config.json`; raises
    ValueError if fairseq has no such generator.
    """
    outdir = Path(outdir)
    _check(bundle)
    config = _config(bundle)
    bundle.generator.generator.remove_weight_norm()
    weights = _weights(bundle.generator, len(config["resblock_kernel_sizes"]))
    with atomic_path(outdir / "model.pt") as temporary, temporary.open("wb") as stream:
        torch.save({"generator": weights}, stream)  # to a path, it would store the temporary name
    for table, names in {"speaker": bundle.streams.speakers, **bundle.streams.tokens}.items():
        if names:
            write_text(outdir / f"{table}s.txt", "\n".join(names) + "\n")
    if bundle.f0_vqvae is not None:  # fairseq's caller has to make the codes with it
        quantizer = Bundle(None, None, None, bundle.f0_vqvae, bundle.f0_model)
        save_bundle(outdir / "f0_quantizer", quantizer)
    write_json(outdir / "config.json", config)
    require_written(outdir / "model.pt")
    return config


def _check(bundle: Bundle) -> None:
    model, streams = bundle.model, bundle.streams
    if not isinstance(model, UnitHifiganSizes):
        raise ValueError(
            f"the vocoder is a {arch_of(model)}; fairseq's code HiFi-GAN is a unit_hifigan."
        )
    if model.activation != "leaky-relu":
        raise ValueError(
            f"the generator's activation is {model.activation}; fairseq's is leaky-relu."
        )
    if others := [f"{token}s" for token in streams.tokens if token != "style"]:
        raise ValueError(f"the model has {', '.join(others)}; fairseq's code HiFi-GAN has none.")
    if any(row.count(",") != 2 for row in model.resblock_dilation_sizes.split(";")):
        raise ValueError(
            f"the residual blocks have dilations {model.resblock_dilation_sizes}; fairseq's have three "
            "in each. Train with --resblock-dilation-sizes '1,3,5;1,3,5;1,3,5' for such an export."
        )
    predicts = model.duration_predictor and not bundle.generator.durations_need_speaker
    if predicts and model.duration_kernel_size != 3:
        raise ValueError(
            f"the duration predictor's kernel is {model.duration_kernel_size}; fairseq's pads for 3 alone."
        )
    frame = math.prod(bundle.generator.generator.upsample_rates)
    if not streams.has_pitch and streams.unit_hop != frame:
        raise ValueError(
            f"a unit has {streams.unit_hop} samples and a frame {frame}; without a pitch stream fairseq "
            "takes a frame for a unit."
        )
