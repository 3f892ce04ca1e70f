"""Utterances as streams of integers, and `StreamSpec`: the description of the streams of a model."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import F0_CODE_HOP, SAMPLE_RATE, TOKENS
from fairseq_resynth.data.manifest import read_manifest, read_names, require_data_directory
from fairseq_resynth.data.packed import has_stream
from fairseq_resynth.data.storage.files import read_object
from fairseq_resynth.data.storage.messages import first_names, shown
from fairseq_resynth.data.unit_files import is_unit_folder, read_unit_file
from fairseq_resynth.data.units import read_integer_rows

STREAM_NAMES = ("units", "f0", "speaker", *TOKENS)
_LEAST_SIZES = {"unit_hop": 1, "num_units": 1, "f0_code_hop": 1, "sample_rate": 1}
_LEAST_SIZES |= dict.fromkeys(("num_f0_codes", "f0_channels", "speaker_dim"), 0)
# What must be the same in two descriptions of an encoder for their streams to mean the same.
_SAME_UNITS = ("kmeans_hash", "vqvae_hash", "num_clusters", "unit_hop")
_SAME_F0_CODES = ("vqvae_hash", "quantizer_hash", "num_codes")


@dataclass(frozen=True)
class StreamSpec:
    """The streams that a model is trained on."""

    unit_hop: int  # samples per unit
    num_units: int  # units are 0 … num_units - 1
    f0_code_hop: int = F0_CODE_HOP  # samples per pitch code
    num_f0_codes: int = 0  # pitch codes are 0 … num_f0_codes - 1; 0: no pitch codes
    speakers: tuple[str, ...] = ()  # the rows of the table; empty: no speaker stream
    # Content of `units.json` and `f0_codes.json`: how the streams were made.
    units: dict[str, Any] = field(default_factory=dict)
    f0_codes: dict[str, Any] = field(default_factory=dict)
    # Content of `speakers.json`: F0 mean and standard deviation by name.
    speaker_statistics: dict[str, Any] = field(default_factory=dict)
    sample_rate: int = SAMPLE_RATE  # Hz
    f0_channels: int = 0  # channels of continuous F0 at 200 Hz, instead of pitch codes; 0: none
    speaker_dim: int = 0  # dimensions of speaker vectors; 0: a table of speakers instead
    # Names of each named token that the model has, the rows of its table: {"style": ("calm", "sad")}.
    tokens: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Content of `speaker_vectors.json`: the encoder, and the mean vector of each speaker.
    speaker_vectors: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError if a size is no whole number, or a name no text: the description of a model comes
        from a file."""
        for name, value in vars(self).items():
            least = _LEAST_SIZES.get(name)
            if least is not None and not (isinstance(value, Integral) and least <= value < 1 << 31):
                raise ValueError(
                    f"{name} is {ascii(value)[:40]}, expected an integer from {least} on."
                )
        for name in (*self.speakers, *itertools.chain(*self.tokens.values())):
            if not isinstance(name, str):
                raise ValueError(f"a name is {ascii(name)[:40]}, expected text.")
        for name in ("units", "f0_codes", "speaker_statistics", "speaker_vectors"):
            if not isinstance(found := getattr(self, name), dict):
                raise ValueError(f"{name} is {ascii(found)[:40]}, expected an object.")

    def to_dict(self) -> dict[str, Any]:
        """The description in JSON types, where a named token is `styles`, `languages` and so on."""
        values = {**asdict(self), "speakers": list(self.speakers)}
        names = values.pop("tokens")
        return {**values, **{f"{token}s": list(rows) for token, rows in names.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StreamSpec":
        """The description from the result of `to_dict`."""
        values = {**values, "speakers": tuple(values.get("speakers", ()))}
        names = {token: tuple(values.pop(f"{token}s", ())) for token in TOKENS}
        return cls(**values, tokens={token: rows for token, rows in names.items() if rows})

    @property
    def has_pitch(self) -> bool:
        """Whether there is a pitch stream: codes or continuous F0."""
        return bool(self.num_f0_codes or self.f0_channels)

    @property
    def has_speaker(self) -> bool:
        """Whether there is a speaker stream: rows of a table or vectors."""
        return bool(self.speakers or self.speaker_dim)

    def speaker_index(self, name: str) -> int:
        """The row of a speaker in the table. Raises ValueError, with the known speakers, for any other."""
        if name not in self.speakers:
            known = first_names(self.speakers) or "no speaker stream"
            raise ValueError(f"unknown speaker {name!r}; the model has {known}.")
        return self.speakers.index(name)

    def token_index(self, token: str, name: str | None) -> int:
        """The row of a name in the table of a named token; None is allowed if the table has one row. Raises
        ValueError, with the known names, for any other, or if the model has no such token."""
        known = self.tokens.get(token, ())
        if not known:
            raise ValueError(
                f"--{token} {name}: needs a model with {token}s, and this one has none."
            )
        if name is None and len(known) > 1:
            raise ValueError(f"give a {token}: the model has {first_names(known)}: --{token} NAME.")
        if name is not None and name not in known:
            raise ValueError(f"{token} {name!r}: the model has {first_names(known)}.")
        return 0 if name is None else known.index(name)

    def check_tokens(self, names: Mapping[str, str]) -> None:
        """Raises ValueError if the model lacks one of some named tokens, such as {"style": "sad"}."""
        for token, name in names.items():
            self.token_index(token, name)

    def check_same_encoders(self, data: Path) -> None:
        """Raises ValueError if other encoders made the streams of a data directory."""
        f0_keys = ("representation",) if self.f0_channels else _SAME_F0_CODES
        for name, verb, expected, keys in (
            ("units.json", "quantize", self.units, _SAME_UNITS),
            ("f0_codes.json", "quantize-f0", self.f0_codes if self.has_pitch else {}, f0_keys),
            ("speaker_vectors.json", "speakers", self.speaker_vectors, ("encoder_hash",)),
        ):
            found = _optional_json(data / name)
            for key in keys:
                if key in expected and key in found and expected[key] != found[key]:
                    raise ValueError(
                        f"{data / name}: {key} is {shown(found[key])}, the model was trained with "
                        f"{shown(expected[key])}. Run `resynth {verb} {data}` with that one."
                    )


@dataclass(frozen=True)
class Utterance:
    """One utterance as streams."""

    units: np.ndarray  # (U,) int64 content units
    f0_codes: np.ndarray | None = None  # (F,) int64 pitch codes
    speaker: str | np.ndarray | None = None  # name or (D,) vector; None if it is unknown
    num_samples: int = 0  # length of the recording in samples; 0 if there is none
    f0: np.ndarray | None = None  # (C, N) float normalized continuous F0 at 200 Hz
    tokens: Mapping[str, str] = field(default_factory=dict)  # named tokens: {"style": "sad"}
    name: str = ""  # used in reports and messages


def _optional_json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _chosen_streams(data: Path, split: str, names: str) -> dict[str, bool]:
    files = {name: has_stream(data, split, name) for name in STREAM_NAMES}
    files["f0"] |= bool(_optional_json(data / "f0_codes.json").get("f0_channels"))
    if names == "auto":
        return {**files, "units": True}
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in STREAM_NAMES:
            raise ValueError(f"--streams has {name!r}, expected some of {', '.join(STREAM_NAMES)}.")
        if not files[name]:
            raise FileNotFoundError(
                f"--streams asks for {name}, and {data / split}.{name} does not exist."
            )
    if "units" not in chosen:
        raise ValueError(f"--streams is {names!r}: it must hold `units`.")
    return {name: name in chosen for name in STREAM_NAMES}


def read_streams(
    data: str | Path,
    names: str = "auto",
    split: str = "train",
    unit_hop: int = 0,
    num_units: int = 0,
    speaker_input: str = "table",
) -> StreamSpec:
    """Reads the description of the streams of a data directory, from the files of one split.

    Args:
        names: `auto` (every stream that has a file) or some of `STREAM_NAMES`, separated by commas.
        unit_hop, num_units: samples per unit and size of the table, for units without `units.json`.
        speaker_input: `table`, or `vector` for the vectors of `resynth speakers`.

    Raises FileNotFoundError if a file is missing, ValueError if files or arguments contradict each other.
    """
    data = require_data_directory(data)
    wanted = _chosen_streams(data, split, names)
    units = _optional_json(data / "units.json")
    made_by = "Make it with `resynth quantize-f0`."
    codes = read_object(data / "f0_codes.json", made_by) if wanted["f0"] else {}
    speakers = _names(data, split, "speaker") if wanted["speaker"] else ()
    return StreamSpec(
        unit_hop=_unit_size(data, units, "unit_hop", "--unit-hop", unit_hop),
        num_units=_unit_size(data, units, "num_clusters", "--num-units", num_units),
        f0_code_hop=codes.get("f0_code_hop", F0_CODE_HOP),
        num_f0_codes=codes.get("num_codes", 0),
        speakers=speakers,
        units=units,
        f0_codes=codes,
        speaker_statistics=_optional_json(data / "speakers.json"),
        f0_channels=codes.get("f0_channels", 0),
        tokens={name: _names(data, split, name) for name in TOKENS if wanted[name]},
        **_vector_fields(data, speakers, speaker_input),
    )


def _names(data: Path, split: str, suffix: str) -> tuple[str, ...]:
    path = data / f"{split}.{suffix}"
    names = read_names(path, len(read_manifest(data / f"{split}.tsv")))
    if "" in names.table:
        raise ValueError(f"{path}:{names.index('') + 1}: the line is empty, expected a name.")
    return tuple(names.table)


def _vector_fields(data: Path, speakers: tuple[str, ...], speaker_input: str) -> dict[str, Any]:
    if speaker_input == "table":
        return {}
    if speaker_input != "vector":
        raise ValueError(f"--speaker-input {speaker_input!r}: expected table or vector.")
    if not speakers:
        raise ValueError(f"--speaker-input vector needs the stream `speaker` of {data}.")
    path, command = data / "speaker_vectors.json", f"`resynth speakers {data}`"
    found = read_object(path, f"Make it with {command}.", means=dict, speaker_dim=int)
    if missing := [name for name in speakers if name not in found["means"]]:
        raise ValueError(f"{path} lacks {first_names(missing)}: run {command} again.")
    found["means"] = {name: found["means"][name] for name in speakers}
    return {"speaker_dim": found["speaker_dim"], "speaker_vectors": found}


def _unit_size(data: Path, units: dict[str, Any], key: str, option: str, given: int) -> int:
    known, path = units.get(key, 0), data / "units.json"
    for value, place in ((known, f"{path}: {key}"), (given, option)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{place} is {value!r}, expected a whole number above 0.")
    if given and known and given != known:
        raise ValueError(f"{option} {given} contradicts {path}: {key} is {known}.")
    if not given and not known:
        raise ValueError(
            f"{path} does not say {key}: make the units with `resynth quantize`, or give {option} for "
            "units that were made elsewhere."
        )
    return given or known


def is_data_directory(path: str | Path) -> bool:
    """Whether a path is a folder, and not one of unit files or a saved dataset."""
    return Path(path).is_dir() and not is_unit_folder(Path(path))


def read_utterances(
    path: str | Path, splits: Sequence[str] | None = None, key: str = ""
) -> list[Utterance]:
    """Reads the units and the pitch codes of a data directory (`splits`; None: all), or of what
    `read_unit_file` reads with `key`. Next to a unit file NAME.txt, NAME.f0 may have the pitch codes, one
    line per utterance. Raises FileNotFoundError if there are no units, and ValueError if a line cannot be
    parsed."""
    path = Path(path)
    if is_data_directory(path):
        return [row for split in _chosen_splits(path, splits) for row in _read_split(path, split)]
    rows = read_unit_file(path, key)
    names = [Path(row.label).name or row.label for row in rows]
    return _with_f0_codes([row.units for row in rows], names, path.parent, path.stem)


def _chosen_splits(folder: Path, splits: Sequence[str] | None) -> list[str]:
    found = sorted(
        {path.stem for suffix in ("units", "pack") for path in folder.glob(f"*.{suffix}")}
    )
    if not found:
        command = f"`resynth quantize {folder}`"
        raise FileNotFoundError(f"{folder} has no *.units. Make them with {command}.")
    if missing := ", ".join(split for split in splits or [] if split not in found):
        raise FileNotFoundError(
            f"{folder} has the splits {shown(', '.join(found))}, not {missing}."
        )
    return list(splits or found)


def _read_split(folder: Path, split: str) -> list[Utterance]:
    path, manifest = folder / f"{split}.tsv", None
    if path.is_file():
        manifest = read_manifest(path)
    rows = None if manifest is None else len(manifest)
    units = read_integer_rows(folder / f"{split}.units", rows, "resynth quantize")
    names = [manifest.name(row) if manifest else f"{split}_{row + 1}" for row in range(len(units))]
    return _with_f0_codes(units, names, folder, split)


def _with_f0_codes(
    units: Sequence[np.ndarray], names: list[str], folder: Path, stem: str
) -> list[Utterance]:
    codes: Sequence[np.ndarray | None] = [None] * len(units)
    if has_stream(folder, stem, "f0"):
        codes = read_integer_rows(folder / f"{stem}.f0", len(units), "resynth quantize-f0")
    rows = zip(units, codes, names, strict=True)
    return [Utterance(row, f0_codes, name=name) for row, f0_codes, name in rows]


def stream_sizes(paths: Sequence[str | Path], utterances: Sequence[Utterance]) -> dict[str, int]:
    """The hops and table sizes of utterances: `num_units` and `num_f0_codes`, `unit_hop` and `f0_code_hop`.
    They are those in the directories among `paths`, or else the largest unit and code of the utterances,
    where hops are left out. Raises ValueError if directories differ."""
    known: dict[str, int] = {}
    for folder in map(Path, paths):
        for file, key, name in (
            ("units.json", "num_clusters", "num_units"),
            ("units.json", "unit_hop", "unit_hop"),
            ("f0_codes.json", "num_codes", "num_f0_codes"),
            ("f0_codes.json", "f0_code_hop", "f0_code_hop"),
        ):
            stored = _optional_json(folder / file).get(key)
            if stored is not None and known.setdefault(name, stored) != stored:
                raise ValueError(
                    f"{folder / file}: {key} is {shown(stored)}, elsewhere {shown(known[name])}."
                )
    known.setdefault("num_units", 1 + _largest(row.units for row in utterances))
    known.setdefault("num_f0_codes", 1 + _largest(row.f0_codes for row in utterances))
    return known


def _largest(rows: Iterable[np.ndarray | None]) -> int:
    return max((int(row.max(initial=-1)) for row in rows if row is not None), default=-1)
