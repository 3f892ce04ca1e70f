"""The `.rsyn` file: header, speaker, coded streams, checksum; specified in `docs/codec_format.md`."""

import contextlib
import hashlib
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.format.payload import END, LARGEST, Need, PayloadCoder, Steps
from fairseq_resynth.codec.format.range_coder import ByteDecoder, ByteEncoder, CodecError

VERSION_NIBBLE = 0xB0  # format 1; the low half holds the flags
HAS_F0 = 1
SPEAKER_SHIFT = 1
NO_SPEAKER, SPEAKER_INDEX, SPEAKER_VECTOR = range(3)
LARGEST_VECTOR = 1 << 12
IDENTITY_BYTES = 2  # enough to name a foreign model in an error; the checksum covers all 16
CHECKSUM_BYTES = 3

StoredSpeaker = int | np.ndarray | None
Integers = np.ndarray | Sequence[int]


def pack_varint(value: int) -> bytes:
    """A number from 0 on in 7 bits per byte, the low ones first."""
    out = bytearray()
    while value > 127:
        out.append(128 | value & 127)
        value >>= 7
    return bytes([*out, value])


def pack_speaker(speaker: StoredSpeaker) -> tuple[int, bytes]:
    """Encodes a speaker as (kind, bytes).

    An index is a varint (7 bits per byte, the low ones first). A vector is a varint of its size, its largest
    magnitude as a little-endian half float, and each component as int8, scaled by largest / 127. Raises
    ValueError if an index is negative, or a vector is empty, too long or not finite.
    """
    if speaker is None:
        return NO_SPEAKER, b""
    if np.ndim(speaker) == 0:
        if not 0 <= int(speaker) < 1 << 28:
            raise ValueError(f"found the speaker {speaker}, expected an index from 0")
        return SPEAKER_INDEX, pack_varint(int(speaker))
    vector = np.asarray(speaker, dtype=np.float64)
    largest = float(np.abs(vector).max(initial=0.0))
    if vector.ndim != 1 or not 1 <= len(vector) <= LARGEST_VECTOR or not largest < 65000:
        raise ValueError(
            f"the speaker vector has shape {vector.shape} and largest magnitude {largest}; expected "
            f"(D,) finite, D up to {LARGEST_VECTOR}"
        )
    scale = struct.pack("<e", largest)
    # Divided by the rounded scale, as it will be multiplied: what was decoded encodes to the same bytes.
    unit = struct.unpack("<e", scale)[0] or 1.0
    levels = np.clip(np.round(vector / unit * 127), -127, 127).astype(np.int8)
    return SPEAKER_VECTOR, pack_varint(len(vector)) + scale + levels.tobytes()


def read_varint(data: bytes) -> tuple[int, int] | None:
    """Reads a number of up to 4 bytes: (value, length), or None if the data is incomplete. Raises
    CodecError if it is not in its shortest form."""
    for index, byte in enumerate(data[:4]):
        if byte < 128:
            if byte == 0 and index:  # only the shortest form is valid: one value, one file
                break
            value = sum((data[place] & 127) << (7 * place) for place in range(index + 1))
            return value, index + 1
    else:
        if len(data) < 4:
            return None
    raise CodecError("the file is damaged: a number in its header is invalid")


def unpack_speaker(kind: int, data: bytes) -> tuple[StoredSpeaker, int] | None:
    """Inverse of `pack_speaker`: the speaker and its length in bytes, or None when more bytes are needed.
    Raises CodecError if the bytes are invalid."""
    if kind == NO_SPEAKER:
        return None, 0
    read = read_varint(data)
    if read is None or kind == SPEAKER_INDEX:
        return read
    size, start = read
    if not 1 <= size <= LARGEST_VECTOR:
        raise CodecError(f"the file is damaged: its speaker vector has {size} dimensions")
    stop = start + 2 + size
    if len(data) < stop:
        return None
    largest = struct.unpack("<e", data[start : start + 2])[0]
    if not 0 <= largest < float("inf"):
        raise CodecError("the file is damaged: its speaker vector is not finite")
    levels = np.frombuffer(data[start + 2 : stop], dtype=np.int8)
    return (levels.astype(np.float64) * (largest / 127)).astype(np.float32), stop


@dataclass(frozen=True)
class SpeechCode:
    """The content of a file."""

    units: np.ndarray  # (U,) int64
    f0_codes: np.ndarray | None = None  # (F,) int64; None: the file has no F0 stream
    # Row in the model's table, or (D,) float32, stored with 8 bits each.
    speaker: StoredSpeaker = None
    num_samples: int | None = None  # of the waveform; None when writing: units times their hop


def _checksum(identity: bytes, header: bytes, coder: PayloadCoder) -> bytes:
    content = identity + header + coder.digest.digest()
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


def stream_values(need: Need, values: Integers) -> np.ndarray:
    """The values of a stream as (n,) int64; raises ValueError if one is negative or too large."""
    symbols = np.asarray(values, dtype=np.int64)
    if len(symbols) and not (symbols.min() >= 0 and symbols.max() <= LARGEST):
        raise ValueError(
            f"{need.value}: expected integers from 0 to {LARGEST}, "
            f"found {symbols.min()} to {symbols.max()}"
        )
    return symbols


class FileWriter:
    """Writes a file incrementally; the output is identical to that of `write_bytes`. `coder`, the
    `PayloadCoder`, counts the bits."""

    def __init__(
        self, model: EntropyModel, identity: bytes, has_f0: bool, speaker: StoredSpeaker = None
    ):
        kind, field = pack_speaker(speaker)
        first = VERSION_NIBBLE | kind << SPEAKER_SHIFT | HAS_F0 * has_f0
        self._identity = identity
        self._header = bytes([first]) + identity[:IDENTITY_BYTES] + field
        self._written = self._samples = 0
        self._unit_hop = model.settings.unit_hop
        self._encoder = ByteEncoder()
        self.coder = PayloadCoder(model, self._encoder, has_f0)
        self._steps = self.coder.steps()
        self._need = next(self._steps)
        self._queues: dict[Need, deque[int]] = {need: deque() for need in Need}

    def push(self, units: Integers = (), f0_codes: Integers = ()) -> bytes:
        """Appends stream values, (n,) and (m,) integers, and returns the bytes that are final. Raises
        ValueError if a value is negative or too large."""
        for need, values in ((Need.UNIT, units), (Need.F0, f0_codes)):
            symbols = stream_values(need, values)
            self._queues[need].extend(symbols.tolist())
            self._samples += (need is Need.UNIT) * len(symbols) * self._unit_hop
        self._advance()
        return self._fresh(self._header + self._encoder.settled())

    def end_units(self) -> bytes:
        """Ends the units; returns the coded streams so far, to measure the size of the units alone."""
        self._queues[Need.UNIT].append(END)
        self._advance()
        return self._encoder.finish()

    def finish(self, num_samples: int | None = None) -> bytes:
        """Ends the file of a waveform of `num_samples`; returns the bytes not yet returned."""
        self._queues[Need.UNIT].append(END)
        self._queues[Need.F0].append(END)
        self._queues[Need.SAMPLES].append(self._samples if num_samples is None else num_samples)
        self._advance()
        checksum = _checksum(self._identity, self._header, self.coder)
        return self._fresh(self._header + self._encoder.finish() + checksum)

    def _advance(self) -> None:
        # The steps stop after the number of samples, which is the last value.
        with contextlib.suppress(StopIteration):
            while self._queues[self._need]:
                self._need = self._steps.send(self._queues[self._need].popleft())
        self.coder.units.clear()
        self.coder.f0_codes.clear()

    def _fresh(self, data: bytes) -> bytes:
        fresh = data[self._written :]
        self._written = max(self._written, len(data))
        return fresh


class FileReader:
    """Reads a file of the bundle `identity`, 16 bytes, incrementally. `checksum` is False for a member of an
    archive, which is checked as a whole."""

    def __init__(self, model: EntropyModel, identity: bytes, checksum: bool = True):
        # None until the header has come:
        self.header: Header | None = None
        self.speaker: StoredSpeaker = None
        self.coder: PayloadCoder | None = None
        self._steps: Steps | None = None
        self._decoder = ByteDecoder()
        self._model, self._identity = model, identity
        self._checksum_bytes = CHECKSUM_BYTES if checksum else 0
        self._header = self._held = b""

    def feed(self, data: bytes, complete: bool = False) -> None:
        """Appends bytes. Set `complete=True` with the last bytes; the checksum is then verified. Raises
        CodecError if they are damaged, truncated, too many, or of another format or model."""
        self._held += data
        if self.coder is None:
            self.header = read_header(self._held, self._identity, complete)
            if self.header is None:
                return
            self.speaker, size = self.header.speaker, self.header.size
            self._header, self._held = self._held[:size], self._held[size:]
            self.coder = PayloadCoder(self._model, self._decoder, self.header.has_f0)
            self._steps = self.coder.steps()
        stop = max(len(self._held) - self._checksum_bytes, 0)  # the last 3 may be the checksum
        body, self._held = self._held[:stop], self._held[stop:]
        if complete and len(self._held) < self._checksum_bytes:
            raise CodecError("the file is truncated: its checksum is missing")
        self._decoder.feed(body, complete)
        while self.coder.num_samples is None and self._decoder.ready():
            next(self._steps, None)  # the steps end when the number of samples is known
        if complete:
            self._decoder.finish()
            checksum = _checksum(self._identity, self._header, self.coder)
            if self._held != checksum[: self._checksum_bytes]:
                raise CodecError("the file is damaged: its checksum does not fit its content")

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """The (n,) units and (m,) F0 codes that were decoded since the last call, int64."""
        streams = self.coder.units, self.coder.f0_codes
        units, f0_codes = (np.array(stream, dtype=np.int64) for stream in streams)
        for stream in streams:
            stream.clear()
        return units, f0_codes


@dataclass(frozen=True)
class Header:
    """What a file tells before its streams."""

    speaker: StoredSpeaker
    has_f0: bool
    size: int  # in bytes


def read_header(data: bytes, identity: bytes, complete: bool = True) -> Header | None:
    """Reads the header from the first bytes of a file, or returns None when more bytes are needed. Raises
    CodecError if they do not start a `.rsyn` file, or one that needs another model, or are incomplete."""
    if complete and not data:
        raise CodecError("the file is empty")
    if data and (data[0] & 0xF0 != VERSION_NIBBLE or data[0] & 8 or data[0] >> 1 & 3 == 3):
        raise CodecError(
            f"not a .rsyn file of format 1: it starts with {data[:3].hex(' ')}, expected b0 to b5"
        )
    found = data[1 : 1 + IDENTITY_BYTES]
    if len(found) == IDENTITY_BYTES and found != identity[:IDENTITY_BYTES]:
        raise CodecError(
            f"the file needs the model {found.hex()}…, this one is {identity.hex()[:8]}…; "
            "decode with the bundle that encoded it"
        )
    start, read = 1 + IDENTITY_BYTES, None
    if len(data) >= start:
        read = unpack_speaker(data[0] >> SPEAKER_SHIFT & 3, data[start:])
    if read is None and complete:
        raise CodecError("the file is truncated: its header is incomplete")
    return read and Header(read[0], bool(data[0] & HAS_F0), start + read[1])


def write_bytes(model: EntropyModel, identity: bytes, code: SpeechCode) -> bytes:
    """The bytes of one utterance's file; `identity`, 16 bytes, names the bundle, or else the context model.
    Raises ValueError if a value is negative or larger than the format holds."""
    writer = FileWriter(model, identity, code.f0_codes is not None, code.speaker)
    first = writer.push(code.units, () if code.f0_codes is None else code.f0_codes)
    return first + writer.finish(code.num_samples)


def read_bytes(
    model: EntropyModel, identity: bytes, data: bytes, checksum: bool = True
) -> SpeechCode:
    """Inverse of `write_bytes`; arguments and errors are those of `FileReader`."""
    reader = FileReader(model, identity, checksum)
    reader.feed(bytes(data), complete=True)
    units, f0_codes = reader.take()
    return SpeechCode(
        units,
        f0_codes if reader.header.has_f0 else None,
        reader.speaker,
        reader.coder.num_samples,
    )
