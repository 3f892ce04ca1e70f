"""Checkpoints of facebookresearch/speech-resynthesis (Polyak et al., 2021) as bundles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_resynth.bundle import Bundle
from fairseq_resynth.data.f0 import F0_HOP
from fairseq_resynth.data.f0_codes import weights_hash
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.interop.f0_statistics import statistics_by_name
from fairseq_resynth.interop.published import Published, build, read_published
from fairseq_resynth.interop.published_config import model_sizes, unit_hop
from fairseq_resynth.interop.published_f0 import f0_quantizer, infer_config, load_checked
from fairseq_resynth.interop.table_names import DEFAULT_SPEAKERS, read_names, table_names
from fairseq_resynth.interop.weight_names import convert_content_vqvae
from fairseq_resynth.models.f0_vqvae import F0VqvaeConfig
from fairseq_resynth.modules.content_vqvae import ContentVqvae
from fairseq_resynth.modules.f0_vqvae import F0Vqvae

ENCODERS = ("hubert", "cpc", "vqvae")


@dataclass(frozen=True)
class ImportOptions:
    """What a checkpoint does not say.

    Attributes:
        config: the configuration; None: `config.json` beside the weights.
        speakers: names in the order of the table; None: `speakers.txt` there, else 0, 1, 2, …
        styles: likewise.
        f0_stats: the F0 statistics; None: where the configuration says, if the file is there.
        f0_stats_speakers: names that its indices stand for, when its list was another.
        f0_quantizer: folder of the F0 quantiser, for a vocoder that has not got it inside.
        f0_code_hop: samples a pitch code, for fairseq's code HiFi-GAN; 0: as its configuration says.
    """

    config: Path | None = None
    speakers: Sequence[str] | None = None
    styles: Sequence[str] | None = None
    f0_stats: Path | None = None
    f0_stats_speakers: Sequence[str] | None = None
    f0_quantizer: Path | None = None
    f0_code_hop: int = 0


def _names_beside(given: Sequence[str] | None, source: Path, name: str) -> Sequence[str] | None:
    beside = source.parent / name
    return read_names(beside) if given is None and beside.is_file() else given


def named_tables(
    config: dict[str, Any], options: ImportOptions, source: Path, has_vectors: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the rows of the speakers' and the styles' table.

    Args:
        config: of the checkpoint.
        options: names given; else those of `speakers.txt` and `styles.txt` beside the weights.
        source: the file of weights.
        has_vectors: whether the model takes speaker vectors, not a table's row.

    Raises:
        ValueError: more names than rows.
    """
    speakers: tuple[str, ...] = ()
    if config.get("multispkr") and not has_vectors:
        rows = config.get("num_speakers", DEFAULT_SPEAKERS)
        given = _names_beside(options.speakers, source, "speakers.txt")
        speakers = table_names(given, rows, "speakers", source)
    styles: tuple[str, ...] = ()
    if config.get("multistyle"):
        given = _names_beside(options.styles, source, "styles.txt")
        styles = table_names(given, config.get("num_styles", 100), "styles", source)
    return speakers, styles


def import_speech_resynthesis(path: str | Path, options: ImportOptions | None = None) -> Bundle:
    """Reads a `g_*` with its `config.json`: a unit vocoder of any kind, or an F0 quantiser alone.

    Args:
        path: the folder, whose newest `g_*` counts, or a file.
        options: what the checkpoint does not say.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: refused, cut short, foreign, or configuration and weights contradict each other.
    """
    options = options or ImportOptions()
    published = read_published(path, options.config)
    if "f0_encoder_params" in published.config and "upsample_rates" not in published.config:
        f0_vqvae, f0_model = f0_quantizer(published.source, published.config, published.weights)
        return Bundle(None, None, None, f0_vqvae, f0_model)
    model = model_sizes(published)
    published, content = _split_content(published)
    f0_vqvae, f0_model = _inner_f0_quantizer(published, options)
    streams = _streams(published, options, f0_vqvae, content)
    generator, _ = build(published, model, streams)
    return Bundle(generator, model, streams, f0_vqvae, f0_model, content_vqvae=content)


def _inner_f0_quantizer(
    published: Published, options: ImportOptions
) -> tuple[F0Vqvae | None, F0VqvaeConfig | None]:
    inner = {k: v for k, v in published.weights.items() if k.startswith("quantizer.")}
    if inner:
        config = published.config.get("f0_quantizer") or infer_config(inner)
        return f0_quantizer(published.source, config, inner)
    if options.f0_quantizer:
        bundle = import_speech_resynthesis(options.f0_quantizer)
        return bundle.f0_vqvae, bundle.f0_model
    return None, None


def _split_content(published: Published) -> tuple[Published, ContentVqvae | None]:
    """Takes the VQ-VAE over raw audio out; its codebook is the table of units."""
    prefixes = ("code_encoder.", "code_vq.")
    inner = {k: v for k, v in published.weights.items() if k.startswith(prefixes)}
    if not inner:
        return published, None
    weights = convert_content_vqvae(inner)
    codebook = weights["quantizer.codebook"]
    try:
        encoder = published.config["code_encoder_params"]
        strides = [
            stride
            for times, stride in zip(encoder["downs_t"][0], encoder["strides_t"][0], strict=True)
            for _ in range(times)
        ]
        content = ContentVqvae(len(codebook), codebook.size(1), encoder["width"], strides)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{published.source}: code_encoder_params lack {error}.") from error
    load_checked(published.source, content, weights, "content VQ-VAE")
    rest = {k: v for k, v in published.weights.items() if k not in inner}
    config = {**published.config, "num_embeddings": len(codebook), "code_hop_size": content.stride}
    rest["dict.weight"] = codebook
    return Published(published.source, config, rest, published.rest), content.eval()


def _streams(
    published: Published,
    options: ImportOptions,
    f0_vqvae: F0Vqvae | None,
    content: ContentVqvae | None,
) -> Streams:
    config, weights, source = published.config, published.weights, published.source
    has_f0, quantised = bool(config.get("f0")), "f0_dict.weight" in weights
    if quantised and f0_vqvae is None:
        raise ValueError(
            f"{source} has no F0 quantiser inside: give its folder, --f0-quantizer, as trained "
            "by train_f0_vq."
        )
    codes = _f0_codes(f0_vqvae) if quantised and has_f0 else {}
    speaker_dim = weights["spkr.weight"].size(1) if "spkr.bias" in weights else 0
    speakers, styles = named_tables(config, options, source, bool(speaker_dim))
    hop = unit_hop(published, has_f0 and not quantised)
    return Streams(
        unit_hop=hop,
        num_units=config["num_embeddings"],
        f0_code_hop=codes.get("f0_code_hop", 1280),
        num_f0_codes=codes.get("num_codes", 0),
        speakers=speakers,
        units=_units(config, hop, content),
        f0_codes=codes,
        speaker_statistics=_statistics(published, options, speakers),
        f0_channels=int(has_f0 and not quantised),
        speaker_dim=speaker_dim,
        styles=styles,
    )


def _f0_codes(f0_vqvae: F0Vqvae) -> dict[str, Any]:
    return {
        "num_codes": f0_vqvae.num_codes,
        "f0_code_hop": f0_vqvae.stride * F0_HOP,
        "vqvae_hash": weights_hash(f0_vqvae),
        "normalize": "speaker_zscore",
    }


def _units(config: dict[str, Any], hop: int, content: ContentVqvae | None) -> dict[str, Any]:
    files = str(config.get("input_training_file", "")).lower()
    kinds = [name for name in ENCODERS if name in files]
    units = {
        "feature_type": kinds[-1] if kinds else "unknown",
        "num_clusters": config["num_embeddings"],
        "unit_hop": hop,
    }
    if content is not None:
        units |= {"feature_type": "vqvae", "vqvae_hash": weights_hash(content)}
    return units


def _statistics(
    published: Published, options: ImportOptions, speakers: tuple[str, ...]
) -> dict[str, Any]:
    if not published.config.get("f0"):
        return {}
    path = options.f0_stats
    if path is None:
        named = published.config.get("f0_stats")
        beside = published.source.parent / Path(named).name if named else None
        if beside is None or not beside.is_file():
            return {}
        path = beside
    return statistics_by_name(path, speakers, options.f0_stats_speakers).to_dict()
