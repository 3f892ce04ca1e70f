"""Range coding with constriction in whole bytes, and decoding of bytes that are still arriving.

constriction's Python interface takes probabilities as floating point numbers and turns them into fixed point
with 24 bits. Frequencies that are integers with the sum 2**24 - symbols pass through exactly: each symbol
gets its frequency + 1, so that no rounding decides a byte (a test compares every interval).
"""

import constriction
import numpy as np

from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_ONE

WORD_BYTES = 4
STATE_BITS = 64
Categorical = constriction.stream.model.Categorical
RangeDecoder = constriction.stream.queue.RangeDecoder
RangeEncoder = constriction.stream.queue.RangeEncoder


class CodecError(ValueError):
    """A compressed file is damaged, foreign, made by another model, or larger than allowed."""


def binary_frequencies(probability: int) -> np.ndarray:
    """(2,) float64 frequencies of no and yes, from the probability of yes in Q24."""
    yes = min(max(probability - 1, 0), PROBABILITY_ONE - 2)
    return np.array([PROBABILITY_ONE - 2 - yes, yes], dtype=np.float64)


def uniform_frequencies(size: int) -> np.ndarray:
    """(size,) float64 frequencies of equally likely symbols, as equal as integers allow."""
    share, rest = divmod(PROBABILITY_ONE - size, size)
    return share + (np.arange(size) < rest).astype(np.float64)


class ByteEncoder:
    """Encodes symbols into bytes."""

    def __init__(self) -> None:
        self._encoder = RangeEncoder()

    def ready(self) -> bool:
        """Whether `code` can be called, as for the decoder: always."""
        return True

    def code(self, frequencies: np.ndarray, symbol: int, model: Categorical | None = None) -> int:
        """Encodes one symbol and returns it. `frequencies` are (symbols,) integers, float64 or int64, with
        the sum 2**24 - symbols; `model` is made of them, if the caller has it already."""
        if len(frequencies) > 1:  # a single symbol needs no bits, and constriction refuses it
            model = model or Categorical(frequencies.astype(np.float64), lazy=True)
            self._encoder.encode(symbol, model)
        return symbol

    @property
    def words(self) -> int:
        """Words of 4 bytes that the symbols so far have filled."""
        return self._encoder.pos()[0]

    @property
    def state(self) -> tuple[int, int]:
        """constriction's lower end and width of the interval, 64 bits each."""
        return self._encoder.pos()[1]

    def settled(self) -> bytes:
        """The bytes from the first on that no later symbol can change."""
        words, (lower, width) = self._encoder.pos()
        if lower + width > 1 << STATE_BITS:  # a carry may still run through all of them
            return b""
        # Zeros at the end wait: if the file ended here, they would be left out.
        return self._encoder.get_compressed()[:words].astype(">u4").tobytes().rstrip(b"\0")

    def finish(self) -> bytes:
        """The shortest bytes that, followed by zeros, decode to the symbols.

        constriction seals its output with whole words; any point of the final interval will do, and the one
        with the most zeros at its end saves 3 bytes on average. The last byte is never zero, so that exactly
        one file belongs to the symbols.
        """
        words, (lower, width) = self._encoder.pos()
        sealed = self._encoder.get_compressed().astype(">u4").tobytes()
        size = words * WORD_BYTES + STATE_BITS // 8
        point = int.from_bytes(sealed.ljust(size, b"\0"), "big")
        low = point - (point - lower) % (1 << STATE_BITS)
        for kept in range(STATE_BITS // 8 + 1):
            shift = STATE_BITS - 8 * kept
            candidate = -(-low >> shift)
            if candidate << shift < low + width:
                return candidate.to_bytes(words * WORD_BYTES + kept, "big").rstrip(b"\0")
        raise AssertionError("an interval of at least 2**32 holds a multiple of 2**32")


class ByteDecoder:
    """Decodes symbols from bytes that may still be arriving. It encodes again what it decodes: that tells
    how many bytes the next symbol needs, where to go on when more have come, and at the end whether the
    bytes are exactly those that the encoder writes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._decoder: RangeDecoder | None = None
        self._mirror = ByteEncoder()
        self._complete = False

    def feed(self, data: bytes, complete: bool) -> None:
        """Takes more bytes; `complete` tells that they were the last."""
        self._data += data
        self._complete = complete
        self._decoder = None

    def ready(self) -> bool:
        """Whether the next symbol can be decoded with what has arrived."""
        return self._complete or len(self._data) >= (self._mirror.words + 2) * WORD_BYTES

    def _open(self) -> RangeDecoder:
        data = bytes(self._data[self._mirror.words * WORD_BYTES :])
        if self._complete:
            data += bytes(2 * WORD_BYTES)
        words = np.frombuffer(data, dtype=">u4", count=len(data) // WORD_BYTES)
        decoder = RangeDecoder(words.astype(np.uint32))
        decoder.seek(0, self._mirror.state)
        return decoder

    def code(self, frequencies: np.ndarray, _: int | None = None) -> int:
        """Decodes one symbol, once the decoder is `ready`. Raises CodecError if the bytes end before the
        symbols do, or no encoder could have written them."""
        if len(frequencies) == 1:
            return 0
        if self._decoder is None:
            self._decoder = self._open()
        model = Categorical(frequencies.astype(np.float64), lazy=True)
        try:
            symbol = int(self._decoder.decode(model))
        except (AssertionError, ValueError) as error:
            raise CodecError("the file is damaged: its coded streams are invalid") from error
        self._mirror.code(frequencies, symbol, model)
        if self._complete and self._mirror.words * WORD_BYTES > len(self._data) + WORD_BYTES:
            raise CodecError("the file is truncated: its coded streams end too early")
        return symbol

    def finish(self) -> None:
        """Raises CodecError unless the bytes are what the encoder writes for the symbols."""
        if self._mirror.finish() != bytes(self._data):
            raise CodecError("the file is damaged: bytes are missing, changed or too many")
