"""The fitted context model of a bundle, `entropy.safetensors`: tables, network, weights, all of integers."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fairseq_resynth.codec.entropy.network import IntegerNetwork
from fairseq_resynth.codec.entropy.ngrams import NgramTables
from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.data.storage.messages import one_line, shown

FORMATS = ("resynth-entropy-1", "resynth-entropy-2")  # the second: with confusions
ORDERS = {"unit": 5, "run": 3, "rate": 2, "f0": 4, "f0_by_unit": 3}  # by table, order 0 included
LONGEST_PERIOD = 4096  # units
MADE_BY = "Fit one with `resynth fit-codec DATA --out entropy.safetensors`."


@dataclass(frozen=True)
class Settings:
    """Sizes of the streams and of the tables' contexts."""

    num_units: int  # A
    unit_hop: int = 320  # samples
    num_f0_codes: int = 0  # C; 0: no F0 stream
    f0_code_hop: int = 1280  # samples
    sample_rate: int = 16000
    longest_run: int = 24  # longer runs share a context

    def __post_init__(self) -> None:
        sound = (
            1 <= self.num_units <= 1 << 12
            and 0 <= self.num_f0_codes <= 1 << 12
            and 1 <= self.unit_hop <= 1 << 16
            and 1 <= self.f0_code_hop <= 1 << 16
            and self.units_per_period <= LONGEST_PERIOD
            and 2 <= self.longest_run <= 255
            and 1 <= self.sample_rate <= 1 << 20
        )
        if not sound:
            raise ValueError(
                "expected 1 to 4096 units, up to 4096 F0 codes and hops with a common multiple of up to "
                f"{LONGEST_PERIOD} units; found {asdict(self)}"
            )

    @property
    def units_per_period(self) -> int:
        """The least number of units, above 0, after which an F0 code ends as well."""
        return math.lcm(self.unit_hop, self.f0_code_hop) // self.unit_hop

    def whole_f0_codes(self, units: int) -> int:
        """The number of F0 codes that end within so many units."""
        return units * self.unit_hop // self.f0_code_hop

    def middle_units(self, f0_codes: np.ndarray | int) -> np.ndarray | int:
        """The unit in the middle of each F0 code, by their numbers."""
        return (f0_codes * self.f0_code_hop + self.f0_code_hop // 2) // self.unit_hop


@dataclass(frozen=True)
class EntropyModel:
    """What the encoder and the decoder of the streams share. The tables are `unit` (the symbol after the
    last 0 … 4 units), `run` and `rate` (whether the run ends here), `f0` (the code after the last 0 … 3) and
    `f0_by_unit` (the code by unit, then also by the last code and by the unit before)."""

    settings: Settings
    tables: dict[str, NgramTables]
    # Of `unit`, `run`, `f0`: (experts,) int64 Q16, where the mixers begin; and (2,) int64 Q16, the step sizes
    # of weights and bias.
    weights: dict[str, np.ndarray]
    rates: dict[str, np.ndarray]
    # (units_per_period, 3, 2) int64, by the units in the last period and the codes that end after the last
    # unit: how often the F0 codes went on, and how often they ended.
    f0_end: np.ndarray
    network: IntegerNetwork | None = None  # None if the tables are used alone
    # `units`, (A, K) int64: of each unit, itself and those that follow and precede the same units; `counts`,
    # (A, K) int64 Q16: how much each is believed to stand for it. Empty in files of format 1.
    confusions: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """The name of the format of the file that holds this model."""
        return FORMATS[bool(self.confusions)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name in the file."""
        groups = {f"tables.{name}": vars(self.tables[name]) for name in ORDERS}
        groups |= {"weights": self.weights, "rates": self.rates, "confusions": self.confusions}
        groups |= {"network": vars(self.network)} if self.network is not None else {}
        named = {"f0_end": self.f0_end}
        for group, arrays in groups.items():
            named |= {f"{group}.{name}": array for name, array in arrays.items()}
        return named

    @cached_property
    def identity(self) -> bytes:
        """16 bytes that name the model: BLAKE2b of the settings and of every array's shape and values."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.format, asdict(self.settings)], sort_keys=True).encode())
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.digest()

    def check(self) -> None:
        """Raises ValueError unless the arrays belong together and compiled code can use them safely."""
        settings = self.settings
        symbols = {"unit": settings.num_units + 1, "run": 2, "rate": 2}
        for name, orders in ORDERS.items():
            self.tables[name].check(symbols.get(name, settings.num_f0_codes + 1), orders, name)
        if self.network is not None:
            self.network.check(settings.num_units)
            if self.network.longest_run != settings.longest_run:
                raise ValueError(
                    f"the longest run of the network is {self.network.longest_run} frames, that of the "
                    f"tables {settings.longest_run}"
                )
        with_network = int(self.network is not None)
        for name, size in (("unit", 4 + with_network), ("run", 3 + with_network), ("f0", 5)):
            weights, rates = self.weights[name], self.rates[name]
            sound = weights.shape == (size,) and rates.shape == (2,)
            if not sound or max(abs(weights).max(), abs(rates).max()) > 1 << 18:
                raise ValueError(f"the weights {name!r} of the context model are damaged")
        if self.confusions:
            units, counts = self.confusions["units"], self.confusions["counts"]
            sound = units.shape == counts.shape and units.shape[:-1] == (settings.num_units,)
            if not sound or units.size == 0 or units.min() < 0 or units.max() >= settings.num_units:
                raise ValueError("the confusions of the context model are damaged")
            if counts.min() < 0 or counts.max() > 1 << 24 or counts.sum(axis=1).min() < 1:
                raise ValueError("the counts of the confusions of the context model are damaged")
        sound = self.f0_end.shape == (settings.units_per_period, 3, 2)
        if not sound or self.f0_end.min() < 1 or self.f0_end.max() > 1 << 30:
            raise ValueError("the array 'f0_end' of the context model is damaged")

    def to_bytes(self) -> bytes:
        """The model as safetensors, each array in the smallest integer type that holds it."""
        packed = {name: _smallest(array) for name, array in self.arrays().items()}
        metadata = {"format": self.format, "settings": json.dumps(asdict(self.settings))}
        return save(packed, metadata)

    def save(self, path: str | Path) -> None:
        """Writes `to_bytes` to a file."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> "EntropyModel":
        """Reads what `save` wrote; raises ValueError if it is another kind of file, or damaged."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist. {MADE_BY}")
        return cls.from_bytes(Path(path).read_bytes(), path)

    @classmethod
    def from_bytes(cls, data: bytes, name: str | Path) -> "EntropyModel":
        """Inverse of `to_bytes`; messages call it `name`. Raises ValueError if it is something else, or
        damaged."""
        try:
            arrays, size = load(data), int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        except (SafetensorError, KeyError) as error:  # the latter for a type that numpy lacks
            raise ValueError(
                f"{name} is not a context model: {one_line(error)}. {MADE_BY}"
            ) from error
        if (found := metadata.get("format", "no format name")) not in FORMATS:
            expected = " or ".join(FORMATS)
            raise ValueError(f"{name}: expected {expected}, found {shown(found)}. {MADE_BY}")
        try:
            model = cls._assemble(metadata, arrays)
            model.check()
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name} is damaged: {one_line(error)}. {MADE_BY}") from error
        return model

    @classmethod
    def _assemble(cls, metadata: dict[str, str], arrays: dict[str, np.ndarray]) -> "EntropyModel":
        for name, array in arrays.items():
            if not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"the array {name!r} is {array.dtype}, expected integers")

        def group(prefix: str, dtype: type) -> dict[str, np.ndarray]:
            return {
                name[len(prefix) :]: np.array(array, dtype=dtype, order="C")
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        network = group("network.", np.int32)
        return cls(
            Settings(**json.loads(metadata["settings"])),
            {name: NgramTables(**group(f"tables.{name}.", np.int64)) for name in ORDERS},
            group("weights.", np.int64),
            group("rates.", np.int64),
            arrays["f0_end"].astype(np.int64),
            IntegerNetwork(**network) if network else None,
            group("confusions.", np.int64),
        )


def _smallest(array: np.ndarray) -> np.ndarray:
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    kinds = map(np.iinfo, (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64))
    return array.astype(next(kind.dtype for kind in kinds if kind.min <= low and high <= kind.max))
