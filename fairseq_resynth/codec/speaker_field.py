"""The speaker in a file: an index, or a vector of 8 bits a dimension."""

import struct

import numpy as np

from fairseq_resynth.codec.errors import CodecError

NO_SPEAKER, SPEAKER_INDEX, SPEAKER_VECTOR = range(3)
LARGEST_VECTOR = 1 << 12

Speaker = int | np.ndarray | None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(128 | value & 127)
        value >>= 7
    return bytes([*out, value])


def pack_speaker(speaker: Speaker) -> tuple[int, bytes]:
    """Returns the speaker's kind and bytes.

    An index is a varint (7 bits a byte, low first); a vector a varint of its size, a little-endian half
    float, its largest magnitude, and a signed byte a dimension, in 127ths of that.

    Raises:
        ValueError: a negative index, or a vector that is empty, too long, not finite or beyond a half float.
    """
    if speaker is None:
        return NO_SPEAKER, b""
    if np.ndim(speaker) == 0:
        if not 0 <= int(speaker) < 1 << 28:
            raise ValueError(f"the speaker is {speaker}, expected an index from 0")
        return SPEAKER_INDEX, _varint(int(speaker))
    vector = np.asarray(speaker, dtype=np.float64)
    largest = float(np.abs(vector).max(initial=0.0))
    if vector.ndim != 1 or not 1 <= len(vector) <= LARGEST_VECTOR or not largest < 65000:
        raise ValueError(
            f"the speaker vector has shape {vector.shape} and largest magnitude {largest}; expected "
            f"(D,) finite, D up to {LARGEST_VECTOR}"
        )
    scale = struct.pack("<e", largest)
    unit = struct.unpack("<e", scale)[0] or 1.0
    levels = np.clip(np.round(vector / unit * 127), -127, 127).astype(np.int8)
    return SPEAKER_VECTOR, _varint(len(vector)) + scale + levels.tobytes()


def _read_varint(data: bytes) -> tuple[int, int] | None:
    """Returns a varint and its length, or None when bytes are missing."""
    for index, byte in enumerate(data[:4]):
        if byte < 128:
            if byte == 0 and index:
                break
            value = sum((data[place] & 127) << (7 * place) for place in range(index + 1))
            return value, index + 1
    else:
        if len(data) < 4:
            return None
    raise CodecError("the file is damaged: its speaker field is invalid")


def unpack_speaker(kind: int, data: bytes) -> tuple[Speaker, int] | None:
    """Inverse of `pack_speaker`: the speaker and the bytes it took, or None when more bytes are needed.

    Raises:
        CodecError: invalid bytes.
    """
    if kind == NO_SPEAKER:
        return None, 0
    read = _read_varint(data)
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
