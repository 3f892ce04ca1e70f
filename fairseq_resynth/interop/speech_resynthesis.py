"""Checkpoints of facebookresearch/speech-resynthesis (Polyak et al., 2021) as bundles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.checkpoints import load_checkpoint, weights_hash
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.interop.published_checkpoints import (
    ImportOptions,
    Published,
    build,
    load_weights,
    model_sizes,
    read_published,
    read_row_names,
    table_names,
    unit_hop,
)
from fairseq_resynth.interop.weight_names import convert_vqvae
from fairseq_resynth.modules.quantizers import ContentVqvae, F0Vqvae, F0VqvaeSizes

ENCODERS = ("hubert", "cpc", "vqvae")


def import_speech_resynthesis(path: str | Path, options: ImportOptions | None = None) -> Bundle:
    """Reads a `g_*` with its `config.json`: a unit vocoder of any kind, or an F0 quantizer alone.

    `path` is a file, or the folder, whose last `g_*` counts. Raises FileNotFoundError if a file is missing,
    and ValueError if one is refused, truncated or foreign, or if configuration and weights disagree.
    """
    options = options or ImportOptions()
    published = read_published(path, options.config)
    if "f0_encoder_params" in published.config and "upsample_rates" not in published.config:
        f0_vqvae, f0_model = f0_quantizer(published.source, published.config, published.weights)
        return Bundle(None, None, None, f0_vqvae, f0_model)
    model = model_sizes(published)
    published, content = _split_content(published)
    f0_vqvae, f0_model = None, None
    if inner := {k: v for k, v in published.weights.items() if k.startswith("quantizer.")}:
        config = published.config.get("f0_quantizer") or _infer_config(inner)
        f0_vqvae, f0_model = f0_quantizer(published.source, config, inner)
    elif options.f0_quantizer:
        outer = import_speech_resynthesis(options.f0_quantizer)
        f0_vqvae, f0_model = outer.f0_vqvae, outer.f0_model
    streams = _streams(published, options, f0_vqvae, content)
    generator, _ = build(published, model, streams)
    return Bundle(generator, model, streams, f0_vqvae, f0_model, content_vqvae=content)


def _split_content(published: Published) -> tuple[Published, ContentVqvae | None]:
    """Splits off the VQ-VAE over raw audio, whose codebook is the table of units."""
    prefixes = ("code_encoder.", "code_vq.")
    inner = {k: v for k, v in published.weights.items() if k.startswith(prefixes)}
    if not inner:
        return published, None
    weights = convert_vqvae(inner, "code_", "content VQ-VAE")
    codebook = weights["quantizer.codebook"]
    try:
        encoder = published.config["code_encoder_params"]
        pairs = zip(encoder["downs_t"][0], encoder["strides_t"][0], strict=True)
        strides = [stride for times, stride in pairs for _ in range(times)]
        content = ContentVqvae(len(codebook), codebook.size(1), encoder["width"], strides)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{published.source}: code_encoder_params lack {error}.") from error
    complaint = f"the content VQ-VAE of {published.source} contradicts its configuration"
    load_weights(content, weights, complaint)
    rest = {k: v for k, v in published.weights.items() if k not in inner}
    config = {**published.config, "num_embeddings": len(codebook), "code_hop_size": content.stride}
    rest["dict.weight"] = codebook
    return Published(published.source, config, rest), content.eval()


def _streams(
    published: Published,
    options: ImportOptions,
    f0_vqvae: F0Vqvae | None,
    content: ContentVqvae | None,
) -> StreamSpec:
    config, weights = published.config, published.weights
    has_f0, quantized = bool(config.get("f0")), "f0_dict.weight" in weights
    if quantized and f0_vqvae is None:
        raise ValueError(
            f"{published.source} does not contain the F0 quantizer: give the folder that train_f0_vq "
            "wrote, --f0-quantizer."
        )
    codes: dict[str, Any] = {}
    if quantized and has_f0:
        codes = {
            "num_codes": f0_vqvae.num_codes,
            "f0_code_hop": f0_vqvae.stride * F0_HOP,
            "vqvae_hash": weights_hash(f0_vqvae),
            "normalize": "speaker_zscore",
        }
    speaker_dim = weights["spkr.weight"].size(1) if "spkr.bias" in weights else 0
    speakers, tokens = table_names(published, options, bool(speaker_dim))
    hop = unit_hop(published, has_f0 and not quantized)
    files = str(config.get("input_training_file", "")).lower()
    kinds = ["unknown", *(name for name in ENCODERS if name in files)]
    units = {"feature_type": kinds[-1], "num_clusters": config["num_embeddings"], "unit_hop": hop}
    if content is not None:
        units |= {"feature_type": "vqvae", "vqvae_hash": weights_hash(content)}
    return StreamSpec(
        unit_hop=hop,
        num_units=config["num_embeddings"],
        f0_code_hop=codes.get("f0_code_hop", 1280),
        num_f0_codes=codes.get("num_codes", 0),
        speakers=speakers,
        units=units,
        f0_codes=codes,
        speaker_statistics=_statistics(published, options, speakers),
        f0_channels=int(has_f0 and not quantized),
        speaker_dim=speaker_dim,
        tokens=tokens,
    )


def _statistics(
    published: Published, options: ImportOptions, speakers: tuple[str, ...]
) -> dict[str, Any]:
    config, path = published.config, options.f0_stats
    if path is None and config.get("f0_stats"):
        path = published.source.parent / Path(config["f0_stats"]).name
        path = path if path.is_file() else None
    if path is None or not config.get("f0"):
        return {}
    listed = read_row_names(options.f0_stats_speakers) if options.f0_stats_speakers else None
    return _statistics_by_name(path, speakers, listed).to_dict()


def _read_f0_statistics(path: Path) -> dict[Any, Any]:
    """Reads `f0_stats.pth`: {"f0_mean", "f0_std"} in Hz, or one such entry per speaker, by index or name."""
    what = "F0 statistics ({'f0_mean', 'f0_std'} or those by speaker)"
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # numpy 1 and 2
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]
    found = load_checkpoint(path, what, [np.dtype, *dtypes, *((scalar, name) for name in names)])
    try:
        if "f0_mean" in found:
            return _entry(found)
        return {key: _entry(value) for key, value in found.items()}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not readable as {what}: {one_line(error)}") from error


def _entry(values: dict[str, Any]) -> dict[str, float]:
    pair = {key: float(values[key]) for key in ("f0_mean", "f0_std")}
    if not all(np.isfinite(value) and value > 0 for value in pair.values()):
        raise ValueError(f"found {pair}, expected positive Hz")
    return {**pair, "num_voiced": 0}


def _statistics_by_name(
    path: Path, speakers: Sequence[str], listed: Sequence[str] | None
) -> SpeakerStatistics:
    """The statistics that the original would use for each speaker of a model, by name.

    `speakers` are in the order of the model's table, `listed` those that the indices of the statistics stand
    for, if they differ.
    """
    found = _read_f0_statistics(path)
    if "f0_mean" in found:
        return SpeakerStatistics({name: dict(found) for name in speakers}, found)
    if listed is not None:
        if len(listed) != len(found):
            raise ValueError(f"{path} has {len(found)} speakers, {len(listed)} names were given.")
        found = {listed[key]: entry for key, entry in found.items()}
    by_name = all(isinstance(key, str) for key in found)
    named = not all(name == str(row) for row, name in enumerate(speakers))
    if not by_name and named and len(found) != len(speakers):
        raise ValueError(
            f"{path} has {len(found)} speakers by index, and the model has {len(speakers)} names: it was "
            "made for another list, and the indices would give the statistics of other speakers. Give the "
            "names of that list, --f0-stats-speakers, or make speakers.json with `resynth f0`."
        )
    keys = {name: name if by_name else row for row, name in enumerate(speakers)}
    entries = {name: found[key] for name, key in keys.items() if key in found}
    if not entries:
        raise ValueError(f"{path} has no entry for any of the model's speakers.")
    rows = entries.values()
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("f0_mean", "f0_std")}
    return SpeakerStatistics(entries, {**means, "num_voiced": 0})


def _infer_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    """The configuration of a quantizer that came without one, from the shapes of its `quantizer.*`."""
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
) -> tuple[F0Vqvae, F0VqvaeSizes]:
    """Builds an F0 quantizer; raises ValueError if ours cannot have its sizes, or its weights have others."""
    try:
        encoder, codebook = config["f0_encoder_params"], config["f0_vq_params"]
        model = F0VqvaeSizes(
            num_codes=codebook["l_bins"],
            code_dim=codebook["emb_width"],
            width=encoder["width"],
            num_downsamples=encoder["downs_t"][0],
            codebook_decay=codebook["mu"],
        )
        f0_vqvae = F0Vqvae(model)
        plain = (encoder["strides_t"], encoder["depth"], encoder["dilation_growth_rate"])
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the configuration of the F0 quantizer of {source} lacks {error}."
        ) from error
    if plain != ([2], 4, 3) or encoder.get("m_conv", 1.0) != 1.0:
        raise ValueError(
            f"the F0 quantizer of {source} has strides, depth and dilation growth {plain}, "
            "expected ([2], 4, 3)."
        )
    weights = convert_vqvae(weights, "quantizer.", "F0 quantizer")
    load_weights(f0_vqvae, weights, f"the F0 quantizer of {source} contradicts its configuration")
    return f0_vqvae.eval(), model
