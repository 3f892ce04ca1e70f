"""A published unit vocoder: its files, what its configuration says it is, and the names of its speakers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fairseq_resynth.constants import SAMPLE_RATE, TOKENS
from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.data.storage.files import read_object, text_lines
from fairseq_resynth.data.storage.messages import first_names, shown
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.interop.weight_names import generator_name
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.unit_generator import UnitGenerator
from fairseq_resynth.preparation.manifest import read_reference, speakers_of

PATTERNS = ("g_[0-9]*", "model.pt", "*.pt")  # names of weights, in the order of the search
LANGUAGES = "lang.weight"  # a table that only Seamless' vocoder has
DEFAULT_SPEAKERS = 200  # rows of the table of speakers, if the configuration does not say
DEFAULT_NAMES = 100  # and of those of named tokens


@dataclass(frozen=True)
class ImportOptions:
    """What a checkpoint does not say.

    Attributes:
        config: The configuration; None: `config.json` in the folder of the weights.
        speakers, tokens: Files of names in the order of their tables, one per line, of named tokens by token;
            without one `speakers.txt`, `styles.txt` and so on in that folder, else the names are 0, 1, 2, …
        training_list: Instead of `speakers`: lines of `{'audio': …}`, whose paths name the speakers.
        f0_stats: The F0 statistics; None: the file that the configuration names, if it exists.
        f0_stats_speakers: Like `speakers`, for statistics whose indices are those of another list.
        f0_quantizer: Folder of the F0 quantizer, for a vocoder that does not contain it.
        f0_code_hop: Samples per pitch code, for fairseq's code HiFi-GAN; 0: as its configuration says.
    """

    config: Path | None = None
    speakers: Path | None = None
    training_list: Path | None = None
    tokens: Mapping[str, Path | None] = field(default_factory=dict)
    f0_stats: Path | None = None
    f0_stats_speakers: Path | None = None
    f0_quantizer: Path | None = None
    f0_code_hop: int = 0


@dataclass(frozen=True)
class Published:
    """A checkpoint and its configuration."""

    source: Path  # the file of the weights
    config: dict[str, Any]  # content of `config.json`
    weights: dict[str, Tensor]  # content of the file under `generator`


def read_published(path: str | Path, config: str | Path | None = None) -> Published:
    """Reads a `g_*` or `model.pt`, or the last of a folder, with its `config.json` or another `config`.

    Raises FileNotFoundError or ValueError if a file is missing, refused, truncated or not of this layout.
    """
    path = Path(path)
    found = [path] if path.is_file() else []
    for pattern in PATTERNS:
        found = found or sorted(file for file in path.glob(pattern) if file.is_file())
    if not found:
        raise FileNotFoundError(
            f"{path} holds no {' or '.join(PATTERNS)}: give the folder of the checkpoint."
        )
    source = found[-1]
    state = load_checkpoint(source, "a checkpoint of a unit vocoder (`generator`)")
    weights = state.pop("generator", None)
    if weights is None and isinstance(state.get("model"), dict):  # Seamless
        weights = {k.removeprefix("code_generator."): v for k, v in state["model"].items()}
    if weights is None and state and all(isinstance(value, Tensor) for value in state.values()):
        weights = state  # saved as model.state_dict()
    if not isinstance(weights, dict) or not weights:
        raise ValueError(
            f"{source} has no `generator`; found {first_names([*map(str, state)], 8) or 'nothing'}."
        )
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{source}: {shown(name)} is a {type(value).__name__}, expected a tensor."
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(
                f"{source}: {shown(name)} has values that are NaN or infinite: the training had diverged; "
                "take an earlier checkpoint."
            )
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):  # torch.compile, DataParallel
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    file = Path(config) if config else source.parent / "config.json"
    if config is None and LANGUAGES in weights and not file.is_file():
        return Published(source, {}, weights)  # the sizes of Seamless are in its code
    settings = read_object(file, "It belongs into the folder of the weights, or to --config.")
    return Published(source, settings, weights)


def read_row_names(path: Path) -> tuple[str, ...]:
    """The names of a table's rows, one per line; raises ValueError if one is empty or repeated."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, expected one name per line.")
    names = [line.strip() for line in text_lines(path)]
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError(f"{path}: expected different names, one per line, and no empty line.")
    return tuple(names)


_RULES = {"_": "prefix", "parent_name": "parent", "parent_parent_name": "grandparent"}


def _names_of_list(path: Path, multispkr: str) -> tuple[str, ...]:
    """The speakers of a training list, in the order of the original's numbers."""
    if multispkr == "single":
        return ("single",)
    if multispkr not in _RULES:
        raise ValueError(
            f"multispkr is {multispkr!r}, and paths do not tell such speakers: give --speakers."
        )
    speakers = speakers_of(read_reference(path), "", _RULES[multispkr])
    return tuple(sorted(set(speakers.values())))


def table_names(
    published: Published, options: ImportOptions, has_vectors: bool
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The names of the rows of the table of speakers (none, if it takes vectors), and of named tokens.

    Raises ValueError if there are more names than rows.
    """
    config, source = published.config, published.source
    if options.speakers and options.training_list:
        raise ValueError("--speakers and --training-list both name the speakers: give one.")

    speakers = read_row_names(options.speakers) if options.speakers else None
    if options.training_list:
        speakers = _names_of_list(options.training_list, str(config.get("multispkr")))

    def names(what: str, default_rows: int, given: Sequence[str] | None = None) -> tuple[str, ...]:
        rows, file = config.get(f"num_{what}", default_rows), source.parent / f"{what}.txt"
        if given is None:
            known = config.get("row_names", {}).get(what) or list(map(str, range(rows)))
            given = read_row_names(file) if file.is_file() else known
        if len(given) > rows:
            raise ValueError(f"{len(given)} {what} are named, {source} has {rows} rows for them.")
        return tuple(given)

    has_speakers = config.get("multispkr") and not has_vectors
    tokens = {}
    for token in TOKENS:
        if config.get(f"multi{token}"):
            file = options.tokens.get(token)
            tokens[token] = names(f"{token}s", DEFAULT_NAMES, file and read_row_names(file))
    return names("speakers", DEFAULT_SPEAKERS, speakers) if has_speakers else (), tokens


def load_weights(module: nn.Module, weights: dict[str, Tensor], complaint: str) -> None:
    """Loads all weights of a module; `complaint` begins the ValueError if they do not fit it."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip()
        raise ValueError(f"{complaint}: {first}") from error


def build(
    published: Published, model: UnitHifiganSizes, streams: StreamSpec
) -> tuple[UnitGenerator, dict[str, str]]:
    """The generator with the published weights, and the published name of each of our weights.

    `quantizer.*` is left out, and tables with more rows than `streams` has names are cut to the names. Raises
    ValueError, which names the first difference, if configuration and weights contradict each other.
    """
    generator = build_vocoder(model, streams)
    expected = generator.generator.conv_pre.in_channels
    found = published.config.get("model_in_dim", expected)
    if found != expected:
        raise ValueError(
            f"the configuration of {published.source} contradicts itself: model_in_dim is {found}, and its "
            f"streams have {expected} channels."
        )
    weights = {k: v for k, v in published.weights.items() if not k.startswith("quantizer.")}
    blocks = len(model.resblock_kernel_sizes.split(","))
    names = {generator_name(name, blocks): name for name in weights}
    converted = {ours: weights[name] for ours, name in names.items()}
    for table, row_names in {"speaker": streams.speakers, **streams.tokens}.items():
        key = f"{table}_embedding.weight"
        if key in converted and row_names:
            converted[key] = converted[key][: len(row_names)]
    if "generator.conv_pre.weight" in converted:
        generator.generator.remove_weight_norm()
    _check_weights(published.source, generator, converted, names)
    generator.load_state_dict(converted)
    return generator.eval(), names


def _check_weights(
    source: Path, generator: UnitGenerator, converted: dict[str, Tensor], names: dict[str, str]
) -> None:
    expected = generator.state_dict()
    contradiction = f"{source} contradicts its configuration:"
    for ours, value in converted.items():
        if ours not in expected:
            raise ValueError(
                f"{contradiction} it has no place for the weight {shown(names[ours])}."
            )
        if value.shape != expected[ours].shape:
            raise ValueError(
                f"{contradiction} {shown(names[ours])} is {tuple(value.shape)}, "
                f"the configuration makes it {tuple(expected[ours].shape)}."
            )
    if missing := [ours for ours in expected if ours not in converted]:
        name = re.sub(r"\.parametrizations\.weight\.original[01]", ".weight", missing[0])
        raise ValueError(
            f"{contradiction} {len(missing)} weights are missing, {name} for instance."
        )


# What forks condition on, without a counterpart here.
UNKNOWN = ("f0_feats", "gst", "gst_dim", "lambda_commit")


def model_sizes(published: Published) -> UnitHifiganSizes:
    """The generator's sizes; ValueError if a key is missing or wrong, or it is not of HiFi-GAN V1's kind."""
    config = published.config
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(
            f"the configuration of {published.source} lacks {', '.join(missing)}: it is not "
            "that of a unit vocoder."
        )
    durations = config.get("dur_predictor_params") or {}
    for values in (config, durations):
        for key, is_right in _KINDS.items():
            if key in values and not is_right(values[key]):
                raise ValueError(
                    f"the configuration of {published.source} is wrong: {key} is {values[key]!r}."
                )
    if str(config.get("resblock", "1")) != "1":
        raise ValueError(
            f"resblock is {config['resblock']!r}, expected '1', that of HiFi-GAN V1 and V2."
        )
    if config.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(f"sampling_rate is {config['sampling_rate']} Hz, expected {SAMPLE_RATE}.")
    unknown = [key for key in UNKNOWN if config.get(key)]
    if unknown:
        raise ValueError(
            f"{published.source} is conditioned on {', '.join(unknown)}, which is not supported."
        )
    return UnitHifiganSizes(
        embedding_dim=config["embedding_dim"],
        upsample_rates=_join(config["upsample_rates"]),
        upsample_kernel_sizes=_join(config["upsample_kernel_sizes"]),
        upsample_initial_channel=config["upsample_initial_channel"],
        resblock_kernel_sizes=_join(config["resblock_kernel_sizes"]),
        resblock_dilation_sizes=";".join(_join(row) for row in config["resblock_dilation_sizes"]),
        duration_predictor=bool(durations),
        duration_hidden_dim=durations.get("var_pred_hidden_dim", 128),
        duration_kernel_size=durations.get("var_pred_kernel_size", 3),
        duration_dropout=durations.get("var_pred_dropout", 0.5),
        duration_condition="none",
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(is_right, value))


_is_sizes = _list_of(_is_size)
_REQUIRED = {
    "upsample_rates": _is_sizes,
    "upsample_kernel_sizes": _is_sizes,
    "upsample_initial_channel": _is_size,
    "resblock_kernel_sizes": _is_sizes,
    "resblock_dilation_sizes": _list_of(_is_sizes),
    "num_embeddings": _is_size,
    "embedding_dim": _is_size,
}
_KINDS = {
    **_REQUIRED,
    **dict.fromkeys(
        ("code_hop_size", "num_speakers", "embedder_dim", *(f"num_{token}s" for token in TOKENS)),
        _is_size,
    ),
    **dict.fromkeys(("var_pred_hidden_dim", "var_pred_kernel_size"), _is_size),
    "f0_quant_num_bin": lambda value: value is None or value == 0 or _is_size(value),
    "f0_quantizer": lambda value: not value or isinstance(value, dict),
    "dur_predictor_params": lambda value: not value or isinstance(value, dict),
    "f0_stats": lambda value: not value or isinstance(value, str),
}


def _join(values: Sequence[int]) -> str:
    return ",".join(str(int(value)) for value in values)


def unit_hop(published: Published, at_f0_rate: bool) -> int:
    """The number of samples per unit; raises ValueError if `code_hop_size` contradicts the upsampling.

    With `at_f0_rate` the frames may be shorter than a unit, as those of continuous F0 are.
    """
    frame = math.prod(published.config["upsample_rates"])
    hop = published.config.get("code_hop_size", frame)
    if hop % frame or (hop != frame and not at_f0_rate):
        raise ValueError(
            f"the configuration of {published.source} contradicts itself: code_hop_size is {hop} samples, "
            f"and the upsample rates multiply to {frame}."
        )
    return hop
