"""Audio in ZIP archives by fairseq's paths, `archive.zip:offset:length`, stored without compression.

Offset and length, in bytes, are those of the member's own data, a FLAC, WAV or NumPy file, as
fairseq.data.audio.audio_utils defines them.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fairseq_resynth.constants import SAMPLE_RATE

_PATH = re.compile(r"(?P<archive>.+\.zip):(?P<offset>\d+):(?P<length>\d+)")
_NUMPY_MAGIC = b"\x93NUMPY"
_SUBTYPES = {np.dtype("<i2"): "PCM_16", np.dtype("<f4"): "FLOAT", np.dtype("<f8"): "DOUBLE"}


def zip_range(path: str | Path) -> tuple[Path, int, int] | None:
    """The (archive, first byte, number of bytes) of a path into an archive; None for any other path."""
    match = _PATH.fullmatch(str(path))
    return (Path(match["archive"]), int(match["offset"]), int(match["length"])) if match else None


class FileRange(io.RawIOBase):
    """A range of bytes of a file as a file object, whose positions are relative to its start."""

    def __init__(self, stream: io.BufferedReader, start: int, length: int):
        super().__init__()
        self._stream, self.start, self.length, self._at = stream, start, length, 0

    def readable(self) -> bool:
        return True

    seekable = readable

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer) -> int:
        wanted = max(0, min(len(buffer), self.length - self._at))
        self._stream.seek(self.start + self._at)
        count = self._stream.readinto(memoryview(buffer)[:wanted])
        self._at += count
        return count


@contextmanager
def open_zipped(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Opens what a path into an archive names like a `soundfile.SoundFile`. Raises FileNotFoundError without
    the archive, ValueError if it is too short or the member is no audio."""
    archive, offset, length = zip_range(path)
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} does not exist")
    if offset + length > (size := archive.stat().st_size):
        raise ValueError(
            f"{path}: the archive has {size} bytes, expected {offset + length} or more; copy it again or "
            "make its manifest again"
        )
    if not length:
        raise ValueError(f"{path} is empty (0 bytes)")
    with archive.open("rb") as file:
        stream = FileRange(file, offset, length)
        magic, raw = stream.read(len(_NUMPY_MAGIC)), {}
        stream.seek(0)
        if magic == _NUMPY_MAGIC:
            raw = _skip_array_header(path, stream)
        try:
            sound = soundfile.SoundFile(stream, **raw)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{path} is not readable as audio: {error} Members must be stored without compression "
                "(zip -0), and offset and length must be those of their own bytes."
            ) from error
        with sound:
            yield sound


def _skip_array_header(path: str | Path, stream: FileRange) -> dict[str, Any]:
    """Limits the range to the samples after the header that `numpy.save` wrote; returns the arguments with
    which libsndfile reads them."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, _, dtype = headers[np.lib.format.read_magic(stream)](stream)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not readable as an array: {error}") from error
    if len(shape) != 1 or dtype not in _SUBTYPES:
        raise ValueError(
            f"{path}: found an array {shape} of {dtype}, expected a waveform (T,) of int16 or floats"
        )
    header = stream.tell()
    stream.start += header
    stream.length = min(shape[0] * dtype.itemsize, stream.length - header)
    stream.seek(0)
    layout = {"format": "RAW", "subtype": _SUBTYPES[dtype], "endian": "LITTLE"}
    return {"samplerate": SAMPLE_RATE, "channels": 1, **layout}  # an array has no rate
