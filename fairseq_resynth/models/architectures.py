"""The unit vocoders by name: what checkpoints and bundles are built from."""

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.models import unit_hifigan, unit_source_filter, unit_vocos
from fairseq_resynth.models.unit_vocoder import UnitVocoderConfig
from fairseq_resynth.modules.unit_generator import UnitGenerator

_MODELS = {
    "unit_hifigan": (unit_hifigan.UnitHifiganConfig, unit_hifigan.build_generator),
    "unit_vocos": (unit_vocos.UnitVocosConfig, unit_vocos.build_generator),
    "unit_source_filter": (
        unit_source_filter.UnitSourceFilterConfig,
        unit_source_filter.build_generator,
    ),
}
# What `--arch` takes, and the model each is sizes of.
ARCHITECTURES = {
    "unit_vocos_small": "unit_vocos",
    "unit_source_filter_small": "unit_source_filter",
    **{name: name for name in _MODELS},
}


def config_class(arch: str) -> type[UnitVocoderConfig]:
    """Returns the class of an architecture's sizes.

    Raises:
        ValueError: no unit vocoder of that name.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"the unit vocoder {arch!r}: expected {', '.join(sorted(ARCHITECTURES))}.")
    return _MODELS[ARCHITECTURES[arch]][0]


def arch_of(cfg: UnitVocoderConfig) -> str:
    """Returns the name of the model whose sizes these are."""
    return next(name for name, (sizes, _) in _MODELS.items() if isinstance(cfg, sizes))


def build_vocoder(cfg: UnitVocoderConfig, streams: StreamSpec) -> UnitGenerator:
    """Builds the plain torch module of any unit vocoder.

    Raises:
        ValueError: sizes that do not fit each other or the streams.
    """
    return _MODELS[arch_of(cfg)][1](cfg, streams)
