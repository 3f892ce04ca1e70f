"""The coded streams of one file: the order of the symbols, the same for the encoder and the decoder.

Frame by frame: a change bit (not for the first frame), after a change the unit; after the last unit of the
span of an F0 code, that code; then the end of the units, the remaining F0 codes, and the number of samples.
The streams are interleaved in the order of time, so that a file can be played while it arrives, and an F0
code comes after the units of its span, because they predict it. `docs/codec_format.md` specifies the format.
"""

import contextlib
import hashlib
import math
from array import array
from collections import Counter, deque
from collections.abc import Generator
from enum import Enum

import numpy as np

from fairseq_resynth.codec.entropy.context_model import F0Model, UnitModel
from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_BITS
from fairseq_resynth.codec.format.range_coder import (
    ByteDecoder,
    ByteEncoder,
    CodecError,
    binary_frequencies,
    uniform_frequencies,
)

END = -1  # what a writer pushes instead of a unit or an F0 code when there are no more
LIMIT = 1 << 21  # units per file: 11 hours at 50 Hz; bounds the memory a damaged file can claim
LARGEST = (1 << 24) - 1  # of units and F0 codes; a model can know 4096, larger ones are escaped
SAMPLES_MORE = 1024  # a content encoder's window leaves the end of the audio without a unit
# The range coder adds 1 to each frequency, so they are 1 short of the probability.
_ESCAPE = binary_frequencies(1 << (PROBABILITY_BITS - 12))
_BYTE = uniform_frequencies(256)
_REST = uniform_frequencies(SAMPLES_MORE)
_SAMPLES = np.array([1 / 8, 3 / 4, 1 / 8]) * (1 << PROBABILITY_BITS) - 1


class Need(Enum):
    """What `PayloadCoder.steps` is waiting for."""

    UNIT = "unit"
    F0 = "f0"
    SAMPLES = "samples"
    BYTES = "bytes"


Steps = Generator[Need, int | None, int]


def encode_steps(
    steps: Steps, units: list[int], f0_codes: list[int], num_samples: int | None = None
) -> None:
    """Encodes whole streams with the `steps` of a `PayloadCoder`."""
    queues = {
        Need.UNIT: deque([*units, END]),
        Need.F0: deque([*f0_codes, END]),
        Need.SAMPLES: deque([num_samples]),
    }
    with contextlib.suppress(StopIteration):  # which the last value raises
        need = next(steps)
        while True:
            need = steps.send(queues[need].popleft())


class PayloadCoder:
    """Walks through the symbols of a file, encoding or decoding each. One generator serves both directions,
    so that encoder and decoder cannot get out of step: which symbol comes next and how likely each value is
    depends only on symbols before it.

    A file begins with silence, as the model expects. With `midway` the streams begin anywhere in speech, and
    every first unit is equally likely, which takes 8 bits instead of 18 for 200 units.
    """

    def __init__(
        self,
        model: EntropyModel,
        coder: ByteEncoder | ByteDecoder,
        has_f0: bool,
        midway: bool = False,
    ):
        self.bits: Counter[str] = Counter()  # by part: `units`, `runs`, `f0`, `end`, `samples`
        self.bits_by_unit = array("f")  # spent up to the end of each unit's frame
        self._spent = 0.0
        self.digest = hashlib.blake2b(model.identity)  # of everything coded, little-endian int64
        self.units: deque[int] = deque()  # coded and not taken yet, as the next
        self.f0_codes: deque[int] = deque()
        self.num_samples: int | None = None  # until it was coded
        self._settings = model.settings
        self._coder = coder
        self._unit_model = UnitModel(model)
        self._f0_model = F0Model(model) if has_f0 else None
        self._unit, self._midway = END, midway
        # The last units, A for unknown ones: as many as the F0 codes to come may have in their middle.
        hops = model.settings.f0_code_hop, model.settings.unit_hop
        self._recent: deque[int] = deque(maxlen=hops[0] // hops[1] + 2)

    def steps(self, units: int | None = None) -> Steps:
        """Yields what it needs: send a value to encode it, or None to decode it or when bytes have come.
        With a number of `units` these and the F0 codes within them are all: no end and no number of samples
        is coded."""
        count = codes = 0
        unit_before, f0_open = self._unit_model.end, self._f0_model is not None
        while count != units and (yield from self._code_unit((yield Need.UNIT))) != END:
            count += 1
            if count > LIMIT:
                raise CodecError(f"the file claims more than {LIMIT} units")
            self._recent.append(self._unit_model.unit)
            while f0_open and codes < self._settings.whole_f0_codes(count):
                unit = self._middle_unit(codes, count)
                f0_open = (yield from self._code_f0((yield Need.F0), unit, unit_before)) != END
                unit_before, codes = unit, codes + 1
        if units is not None:
            return count
        if f0_open:
            yield from self._code_tail(codes, count, unit_before)
        yield from self._code_samples((yield Need.SAMPLES), count)
        return count

    def _middle_unit(self, code: int, count: int) -> int:
        """The unit in the middle of an F0 code after `count` units; A if it comes after them."""
        later = self._settings.middle_units(code) - count  # from -1, the last unit, downwards
        return self._recent[later] if later < 0 else self._unit_model.end

    def _symbol(self, part: str, frequencies: np.ndarray, symbol: int | None) -> Steps:
        while not self._coder.ready():
            yield Need.BYTES
        symbol = self._coder.code(frequencies, symbol)
        bits = PROBABILITY_BITS - math.log2(frequencies[symbol] + 1)
        self.bits[part] += bits
        self._spent += bits
        return symbol

    def _code_unit(self, value: int | None) -> Steps:
        model = self._unit_model
        if self._unit != END:
            changed = None if value is None else int(value != self._unit)
            frequencies = binary_frequencies(model.change_probability())
            part = "end" if value == END else "runs"
            changed = yield from self._symbol(part, frequencies, changed)
            model.saw_change(changed)
            if not changed:
                return self._seen(self.units, self._unit)
        frequencies = model.frequencies()
        if self._midway and self._unit == END:
            frequencies = uniform_frequencies(model.end + 1)
        value = yield from self._value("units", frequencies, model.end, value)
        if value != END:
            model.saw_unit(min(value, model.end))
            self._unit = value
        return self._seen(self.units, value)

    def _code_f0(self, value: int | None, unit: int, unit_before: int) -> Steps:
        model = self._f0_model
        frequencies = model.frequencies(unit, unit_before)
        value = yield from self._value("f0", frequencies, model.end, value)
        if value != END:
            model.saw(min(value, model.end))
        return self._seen(self.f0_codes, value)

    def _code_tail(self, codes: int, count: int, unit_before: int) -> Steps:
        """Codes the F0 codes that remain after the units, each after a bit whether they end here. An
        utterance has as many codes as start within its units, so that this bit costs almost nothing; with
        the end as a symbol of every code, each code of the file would pay for it."""
        end, left = self._unit_model.end, count % self._settings.units_per_period
        unit = self._middle_unit(codes, count)
        for extra in range(LIMIT):
            value = yield Need.F0
            probability = self._f0_model.end_probability(left, extra)
            ends = None if value is None else int(value == END)
            ends = yield from self._symbol("end", binary_frequencies(probability), ends)
            if ends:
                return self._seen(self.f0_codes, END)
            yield from self._code_f0(value, unit, unit_before)
            unit, unit_before = end, unit
        raise CodecError(f"the file claims more than {LIMIT} F0 codes after its units")

    def _value(self, part: str, frequencies: np.ndarray, end: int, value: int | None) -> Steps:
        """Codes a unit or an F0 code; the symbol `end` stands for the end and for unknown values. The bit
        after it tells which; a value that the model does not know follows in 3 bytes."""
        symbol = None if value is None else end if value == END else min(value, end)
        name = "end" if value == END else part
        symbol = yield from self._symbol(name, frequencies, symbol)
        if symbol != end:
            return symbol
        escaped = None if value is None else int(value != END)
        escaped = yield from self._symbol(name, _ESCAPE, escaped)
        return (yield from self._bytes(part, value, 3)) if escaped else END

    def _bytes(self, part: str, value: int | None, size: int) -> Steps:
        total = 0
        for place in range(size - 1, -1, -1):
            symbol = None if value is None else value >> (8 * place) & 255
            symbol = yield from self._symbol(part, _BYTE, symbol)
            total = total << 8 | symbol
        return total

    def _code_samples(self, value: int | None, count: int) -> Steps:
        """Codes the samples beyond the units' own: none, up to 1024, or any number of either sign."""
        hop = self._settings.unit_hop
        rest = None if value is None else value - count * hop
        kind = None if rest is None else 0 if rest == 0 else 1 if 0 < rest <= SAMPLES_MORE else 2
        kind = yield from self._symbol("samples", _SAMPLES, kind)
        if kind == 1:
            symbol = None if rest is None else rest - 1
            rest = 1 + (yield from self._symbol("samples", _REST, symbol))
        elif kind == 2:
            folded = None if rest is None else 2 * rest if rest >= 0 else -2 * rest - 1
            folded = yield from self._bytes("samples", folded, 5)
            rest = folded >> 1 if folded % 2 == 0 else -(folded + 1 >> 1)
        self.num_samples = count * hop + (rest or 0)
        self.digest.update(self.num_samples.to_bytes(8, "little", signed=True))
        return self.num_samples

    def _seen(self, stream: deque[int], value: int) -> int:
        self.digest.update(value.to_bytes(8, "little", signed=True))
        if value != END:
            stream.append(value)
            if stream is self.units:
                self.bits_by_unit.append(self._spent)
        return value
