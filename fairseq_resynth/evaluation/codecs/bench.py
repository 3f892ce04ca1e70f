"""Bit/s of streams, counted in whole bytes of real files with one utterance each."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.format.bitstream import FileWriter, read_bytes
from fairseq_resynth.data.streams import Utterance

LONG_SECONDS = 3.0
PARTS = ("content", "f0", "overhead", "total")


@dataclass(frozen=True)
class Cost:
    """The size of one utterance."""

    name: str
    seconds: float  # number of units times their hop
    content_bytes: int  # the stream of units with its end mark, alone
    f0_bytes: int  # what the F0 codes add
    total_bytes: int  # the whole file
    bits: Counter = field(repr=False)  # code length by part, before rounding to bytes

    @property
    def overhead_bytes(self) -> int:
        """Header, checksum, number of samples, end mark of the F0 codes."""
        return self.total_bytes - self.content_bytes - self.f0_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with rates in bit/s."""
        counts = {f"{part}_bytes": getattr(self, f"{part}_bytes") for part in PARTS}
        return {"name": self.name, "seconds": round(self.seconds, 4), **counts, **_rates([self])}


def _rate(size: float, seconds: float) -> float:
    return round(8 * size / seconds, 3) if seconds else 0.0


def _rates(costs: Sequence[Cost]) -> dict[str, float]:
    seconds = sum(cost.seconds for cost in costs)
    sizes = {part: sum(getattr(cost, f"{part}_bytes") for cost in costs) for part in PARTS}
    return {f"{part}_bps": _rate(size, seconds) for part, size in sizes.items()}


def measure(model: EntropyModel, utterance: Utterance) -> tuple[Cost, bytes]:
    """The cost of an utterance and its file, which names the context model instead of a bundle."""
    settings = model.settings
    writer = FileWriter(model, model.identity, has_f0=False)
    data = writer.push(utterance.units)
    content = len(writer.end_units())
    data += writer.finish()
    size = len(data)
    if utterance.f0_codes is not None:
        writer = FileWriter(model, model.identity, has_f0=True)
        data = writer.push(utterance.units, utterance.f0_codes) + writer.finish()
    seconds = len(utterance.units) * settings.unit_hop / settings.sample_rate
    sizes = content, len(data) - size, len(data)
    return Cost(utterance.name, seconds, *sizes, writer.coder.bits), data


@dataclass(frozen=True)
class Bench:
    """One cost per utterance, and the CPU seconds of coding all of them, without compilation."""

    costs: list[Cost]
    encode_seconds: float
    decode_seconds: float

    def summary(self) -> dict[str, Any]:
        """Plain JSON types: rates over all utterances, and of those of 3 s and longer."""
        seconds = sum(cost.seconds for cost in self.costs)
        long = [cost for cost in self.costs if cost.seconds >= LONG_SECONDS]
        overhead = sum(cost.overhead_bytes for cost in self.costs) / max(len(self.costs), 1)
        parts = sum((cost.bits for cost in self.costs), Counter())
        return {
            "utterances": len(self.costs),
            "seconds": round(seconds, 2),
            **_rates(self.costs),
            "total_bps_from_3s": _rates(long)["total_bps"],
            "most_bps_from_3s": max((_rates([cost])["total_bps"] for cost in long), default=0.0),
            "overhead_bytes_mean": round(overhead, 3),
            "parts_bps": {name: _rate(bits / 8, seconds) for name, bits in sorted(parts.items())},
            "encode_times_real_time": round(seconds / max(self.encode_seconds, 1e-9), 1),
            "decode_times_real_time": round(seconds / max(self.decode_seconds, 1e-9), 1),
        }


def run_bench(
    model: EntropyModel, utterances: Sequence[Utterance], progress: Callable[[], Any] = lambda: None
) -> Bench:
    """Encodes each utterance into a file of its own, decodes it and compares.

    `progress` is called after each. Raises AssertionError if a file does not decode to its streams.
    """
    measure(model, Utterance(np.zeros(2, np.int64), np.zeros(1, np.int64)))  # compile first
    costs, encoding, decoding = [], 0.0, 0.0
    for utterance in utterances:
        start = time.process_time()
        cost, data = measure(model, utterance)
        middle = time.process_time()
        code = read_bytes(model, model.identity, data)
        decoding += time.process_time() - middle
        encoding += middle - start
        same_f0 = utterance.f0_codes is None or np.array_equal(code.f0_codes, utterance.f0_codes)
        if not (same_f0 and np.array_equal(code.units, utterance.units)):
            raise AssertionError(f"{utterance.name} does not decode to what was encoded")
        costs.append(cost)
        progress()
    return Bench(costs, encoding, decoding)
