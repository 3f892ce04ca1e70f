"""Utterances as streams of integers, and `StreamSpec`: the description of the streams of a model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import F0_CODE_HOP, SAMPLE_RATE
from fairseq_resynth.data.manifest import read_manifest, read_names, require_data_directory
from fairseq_resynth.data.packed import has_stream
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.unit_text import read_unit_file
from fairseq_resynth.data.units import read_integer_rows

STREAM_NAMES = ("units", "f0", "speaker", "style")
MADE_BY = {
    "units.json": "quantize",
    "f0_codes.json": "quantize-f0",
    "speaker_vectors.json": "speakers",
}
UNIT_KEYS = ("kmeans_hash", "vqvae_hash", "num_clusters", "unit_hop")
F0_KEYS = ("vqvae_hash", "quantizer_hash", "num_codes")
SPEAKER_INPUTS = ("table", "vector")


@dataclass(frozen=True)
class StreamSpec:
    """The streams that a model is trained on.

    Attributes:
        unit_hop: samples per unit.
        num_units: units are 0 … num_units - 1.
        f0_code_hop: samples per pitch code.
        num_f0_codes: pitch codes are 0 … num_f0_codes - 1; 0: no pitch codes.
        speakers: names; the position of each is its row in the table. Empty: no speaker stream.
        units: content of `units.json`: how the units were made.
        f0_codes: content of `f0_codes.json`: how the pitch stream was made.
        speaker_statistics: content of `speakers.json`: F0 mean and standard deviation by name.
        sample_rate: Hz.
        f0_channels: channels of continuous F0 at 200 Hz, instead of pitch codes; 0: none.
        speaker_dim: dimensions of speaker vectors, instead of a table of speakers; 0: a table.
        styles: names of speaking styles; the position of each is its row in the table. Empty: none.
        speaker_vectors: content of `speaker_vectors.json`: the encoder, and the mean vector of each speaker.
    """

    unit_hop: int
    num_units: int
    f0_code_hop: int = F0_CODE_HOP
    num_f0_codes: int = 0
    speakers: tuple[str, ...] = ()
    units: dict[str, Any] = field(default_factory=dict)
    f0_codes: dict[str, Any] = field(default_factory=dict)
    speaker_statistics: dict[str, Any] = field(default_factory=dict)
    sample_rate: int = SAMPLE_RATE
    f0_channels: int = 0
    speaker_dim: int = 0
    styles: tuple[str, ...] = ()
    speaker_vectors: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The description in JSON types."""
        return {**asdict(self), "speakers": list(self.speakers), "styles": list(self.styles)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StreamSpec":
        """The description of which `to_dict` gave the values."""
        names = {key: tuple(values.get(key, ())) for key in ("speakers", "styles")}
        return cls(**{**values, **names})

    def speaker_index(self, name: str) -> int:
        """The row of a speaker in the table. Raises ValueError, with the known speakers, for any other."""
        if name not in self.speakers:
            known = ", ".join(self.speakers[:20]) + (" …" if len(self.speakers) > 20 else "")
            raise ValueError(
                f"unknown speaker {name!r}; the model has {known or 'no speaker stream'}."
            )
        return self.speakers.index(name)

    def check_same_encoders(self, data: Path) -> None:
        """Raises ValueError if other encoders than this description's made the streams of a data
        directory."""
        compared: dict[str, tuple[dict, tuple[str, ...]]] = {"units.json": (self.units, UNIT_KEYS)}
        if self.num_f0_codes:
            compared["f0_codes.json"] = (self.f0_codes, F0_KEYS)
        if self.f0_channels:
            compared["f0_codes.json"] = (self.f0_codes, ("representation",))
        if self.speaker_dim:
            compared["speaker_vectors.json"] = (self.speaker_vectors, ("encoder_hash",))
        for name, (expected, keys) in compared.items():
            found = _optional_json(data / name)
            for key in keys:
                if key in expected and key in found and expected[key] != found[key]:
                    raise ValueError(
                        f"{data / name}: {key} is {found[key]}, the model was trained with "
                        f"{expected[key]}. Run `resynth {MADE_BY[name]} {data}` with the one that the model "
                        "was trained with."
                    )


@dataclass(frozen=True)
class Utterance:
    """One utterance as streams.

    Attributes:
        units: (U,) int64 content units.
        f0_codes: (F,) int64 pitch codes.
        speaker: name or (D,) vector of the speaker; None if it is unknown.
        num_samples: length of the recording in samples; 0 if there is none.
        f0: (C, N) float normalized continuous F0 at 200 Hz.
        style: name of the speaking style.
        name: used in reports and messages.
    """

    units: np.ndarray
    f0_codes: np.ndarray | None = None
    speaker: str | np.ndarray | None = None
    num_samples: int = 0
    f0: np.ndarray | None = None
    style: str | None = None
    name: str = ""


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


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
    """Reads the description of the streams of a data directory.

    Args:
        data: the directory.
        names: `auto` (every stream that has a file) or some of `units,f0,speaker,style`.
        split: the split whose files and speakers are read.
        unit_hop: samples per unit, for units without `units.json`.
        num_units: size of the table, for units without `units.json`.
        speaker_input: `table`, or `vector` for the vectors of `resynth speakers`.

    Raises FileNotFoundError if a file is missing, and ValueError if files or arguments contradict each
    other.
    """
    data = require_data_directory(data)
    wanted = _chosen_streams(data, split, names)
    units = _optional_json(data / "units.json")
    hop, count = _unit_sizes(data, units, unit_hop, num_units)
    codes: dict[str, Any] = {}
    if wanted["f0"]:
        codes = read_json(data / "f0_codes.json", "Make it with `resynth quantize-f0`.")
    speakers = _names(data, split, "speaker") if wanted["speaker"] else ()
    return StreamSpec(
        unit_hop=hop,
        num_units=count,
        f0_code_hop=codes.get("f0_code_hop", F0_CODE_HOP),
        num_f0_codes=codes.get("num_codes", 0),
        speakers=speakers,
        units=units,
        f0_codes=codes,
        speaker_statistics=_optional_json(data / "speakers.json"),
        f0_channels=codes.get("f0_channels", 0),
        styles=_names(data, split, "style") if wanted["style"] else (),
        **_vector_fields(data, speakers, speaker_input),
    )


def _names(data: Path, split: str, suffix: str) -> tuple[str, ...]:
    path = data / f"{split}.{suffix}"
    names = read_names(path, len(read_manifest(data / f"{split}.tsv")))
    if "" in names.table:
        raise ValueError(f"{path}:{names.index('') + 1}: the line is empty, expected a name.")
    return tuple(names.table)


def _vector_fields(data: Path, speakers: tuple[str, ...], speaker_input: str) -> dict[str, Any]:
    if speaker_input not in SPEAKER_INPUTS:
        raise ValueError(
            f"--speaker-input {speaker_input!r}: expected {' or '.join(SPEAKER_INPUTS)}."
        )
    if speaker_input == "table":
        return {}
    if not speakers:
        raise ValueError(f"--speaker-input vector needs the stream `speaker` of {data}.")
    found = read_json(data / "speaker_vectors.json", f"Make it with `resynth speakers {data}`.")
    missing = [name for name in speakers if name not in found["means"]]
    if missing:
        raise ValueError(
            f"{data / 'speaker_vectors.json'} lacks {', '.join(missing[:10])}: run `resynth speakers "
            f"{data}` again."
        )
    means = {name: found["means"][name] for name in speakers}
    return {
        "speaker_dim": found["speaker_dim"],
        "speaker_vectors": {**found, "means": means},
    }


def _unit_sizes(data: Path, units: dict, unit_hop: int, num_units: int) -> tuple[int, int]:
    sizes = []
    for flag, key, given in (
        ("unit-hop", "unit_hop", unit_hop),
        ("num-units", "num_clusters", num_units),
    ):
        known = units.get(key, 0)
        if given and known and given != known:
            raise ValueError(
                f"--{flag} {given} contradicts {data / 'units.json'}: {key} is {known}."
            )
        if not given and not known:
            raise ValueError(
                f"{data / 'units.json'} does not say {key}: make the units with `resynth quantize`, or "
                f"give --{flag} for units that were made elsewhere."
            )
        sizes.append(given or known)
    return sizes[0], sizes[1]


def read_utterances(path: str | Path, splits: Sequence[str] | None = None) -> list[Utterance]:
    """Reads the units and the pitch codes of a data directory (`splits`; None: all) or of a unit file.

    Next to a unit file NAME.txt, NAME.f0 may have the pitch codes, one line per utterance. Raises
    FileNotFoundError if there are no units, and ValueError if a line cannot be parsed.
    """
    path = Path(path)
    if path.is_dir():
        return [row for split in _chosen_splits(path, splits) for row in _read_split(path, split)]
    rows = read_unit_file(path)
    f0_path = path.with_suffix(".f0")
    codes: Sequence[np.ndarray | None] = [None] * len(rows)
    if f0_path.is_file():
        codes = read_integer_rows(f0_path, len(rows), "resynth quantize-f0")
    return [
        Utterance(row.units, f0_codes, name=Path(row.label).name or row.label)
        for row, f0_codes in zip(rows, codes, strict=True)
    ]


def _chosen_splits(folder: Path, splits: Sequence[str] | None) -> list[str]:
    found = sorted(
        {path.stem for suffix in ("units", "pack") for path in folder.glob(f"*.{suffix}")}
    )
    if not found:
        raise FileNotFoundError(
            f"{folder} has no *.units. Make them with `resynth quantize {folder}`."
        )
    missing = [split for split in splits or [] if split not in found]
    if missing:
        raise FileNotFoundError(
            f"{folder} has the splits {', '.join(found)}, not {', '.join(missing)}."
        )
    return list(splits or found)


def _read_split(folder: Path, split: str) -> list[Utterance]:
    names = None
    if (folder / f"{split}.tsv").is_file():
        manifest = read_manifest(folder / f"{split}.tsv")
        names = [manifest.name(row) for row in range(len(manifest))]
    count = None if names is None else len(names)
    units = read_integer_rows(folder / f"{split}.units", count, "resynth quantize")
    names = names or [f"{split}_{number}" for number in range(1, len(units) + 1)]
    codes: Sequence[np.ndarray | None] = [None] * len(units)
    if has_stream(folder, split, "f0"):
        codes = read_integer_rows(folder / f"{split}.f0", len(units), "resynth quantize-f0")
    return [
        Utterance(row, f0_codes, name=name)
        for row, f0_codes, name in zip(units, codes, names, strict=True)
    ]


def stream_sizes(paths: Sequence[str | Path], utterances: Sequence[Utterance]) -> dict[str, int]:
    """The hops and table sizes of utterances: `num_units` and `num_f0_codes`, `unit_hop` and `f0_code_hop`.

    They are those in the directories among `paths`. Where none says the size of a table, the largest unit
    and code of the utterances do; the hops of unit files are left out. Raises ValueError if directories
    differ.
    """
    known: dict[str, int] = {}
    names = {
        "units.json": {"num_clusters": "num_units", "unit_hop": "unit_hop"},
        "f0_codes.json": {"num_codes": "num_f0_codes", "f0_code_hop": "f0_code_hop"},
    }
    for folder in (Path(path) for path in paths):
        for file, keys in names.items():
            stored = read_json(folder / file) if (folder / file).is_file() else {}
            for key, name in keys.items():
                if key in stored and known.setdefault(name, stored[key]) != stored[key]:
                    raise ValueError(
                        f"{folder / file}: {key} is {stored[key]}, elsewhere {known[name]}."
                    )
    if "num_units" not in known:
        largest = max((int(row.units.max(initial=-1)) for row in utterances), default=-1)
        known["num_units"] = largest + 1
    if "num_f0_codes" not in known:
        codes = [
            int(row.f0_codes.max(initial=-1)) for row in utterances if row.f0_codes is not None
        ]
        known["num_f0_codes"] = max(codes, default=-1) + 1
    return known
