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

import numpy as np
import soundfile

from fairseq_resynth.constants import SAMPLE_RATE

_PATH = re.compile(r"(?P<archive>.+\.zip):(?P<offset>\d+):(?P<length>\d+)")
_NUMPY_MAGIC = b"\x93NUMPY"


def zip_range(path: str | Path) -> tuple[Path, int, int] | None:
    """The (archive, first byte, number of bytes) of a path into an archive; None for any other path."""
    match = _PATH.fullmatch(str(path))
    return (Path(match["archive"]), int(match["offset"]), int(match["length"])) if match else None


class FileRange(io.RawIOBase):
    """A range of bytes of a file as a file object, which reads only the requested bytes."""

    def __init__(self, stream: io.BufferedReader, start: int, length: int):
        super().__init__()
        self._stream, self._start, self._length, self._at = stream, start, length, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position within the range, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position within the range, and returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer) -> int:
        """Reads into a buffer, up to the end of the range."""
        wanted = max(0, min(len(buffer), self._length - self._at))
        self._stream.seek(self._start + self._at)
        count = self._stream.readinto(memoryview(buffer)[:wanted])
        self._at += count
        return count


@contextmanager
def open_range(path: str | Path) -> Iterator[FileRange]:
    """Opens the bytes that a path into an archive names.

    Raises:
        FileNotFoundError: the archive does not exist.
        ValueError: the archive ends before the range does.
    """
    found = zip_range(path)
    assert found, path  # callers check
    archive, offset, length = found
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} does not exist")
    if offset + length > (size := archive.stat().st_size):
        raise ValueError(
            f"{path}: the archive has {size} bytes, expected {offset + length} or more; copy it again or "
            "make its manifest again"
        )
    if not length:
        raise ValueError(f"{path} is empty (0 bytes)")
    with archive.open("rb") as stream:
        yield FileRange(stream, offset, length)


class _ArraySound:
    """A (T,) waveform of `numpy.save` with the used part of the interface of `soundfile.SoundFile`."""

    samplerate = SAMPLE_RATE  # an array has no rate of its own
    channels = 1

    def __init__(self, path: str | Path, stream: FileRange):
        try:
            reader = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[np.lib.format.read_magic(stream)]
            shape, _, dtype = reader(stream)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is not readable as an array: {error}") from error
        if len(shape) != 1 or dtype not in (np.int16, np.float32, np.float64):
            raise ValueError(
                f"{path}: found an array {shape} of {dtype}, expected a waveform (T,) of int16 or floats"
            )
        self._stream, self._dtype = stream, dtype
        self._first, self.frames, self._at = stream.tell(), shape[0], 0

    def seek(self, frame: int) -> None:
        """Sets the position, in samples."""
        self._at = frame

    def read(self, frames: int, dtype: str) -> np.ndarray:
        """Reads `frames` samples in [-1, 1]; -1: to the end."""
        stop = self.frames if frames < 0 else min(self.frames, self._at + frames)
        self._stream.seek(self._first + self._at * self._dtype.itemsize)
        block = self._stream.read((stop - self._at) * self._dtype.itemsize)
        values = np.frombuffer(block, self._dtype).astype(dtype)
        return values / np.float32(32768) if self._dtype == np.int16 else values


@contextmanager
def open_zipped(path: str | Path) -> Iterator[soundfile.SoundFile | _ArraySound]:
    """Opens a member of an archive like a `soundfile.SoundFile`.

    Raises:
        FileNotFoundError: the archive does not exist.
        ValueError: the archive is too short, or the member is neither audio nor an array.
    """
    with open_range(path) as stream:
        magic = stream.read(len(_NUMPY_MAGIC))
        stream.seek(0)
        if magic == _NUMPY_MAGIC:
            yield _ArraySound(path, stream)
            return
        try:
            sound = soundfile.SoundFile(stream)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{path} is not readable as audio: {error} Members must be stored without compression "
                "(zip -0), and offset and length must be those of their own bytes."
            ) from error
        with sound:
            yield sound
