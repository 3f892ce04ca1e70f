"""Audio files: readers of prepared files (16 kHz mono), resampling, and a writer.

A waveform in this package is a (T,) float32 array in [-1, 1]. Prepared audio may be in ZIP archives, stored
without compression, by fairseq's paths `archive.zip:offset:length`: offset and length, in bytes, are those of
the member's own data, a FLAC, WAV or NumPy file, as fairseq.data.audio.audio_utils defines them.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.storage.files import atomic_path, reading, require_exists
from fairseq_resynth.data.storage.messages import one_line

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


@contextlib.contextmanager
def open_zipped(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Opens what a path into an archive names like a `soundfile.SoundFile`. Raises FileNotFoundError without
    the archive, ValueError if it is too short or the member is no audio."""
    archive, offset, length = zip_range(path)
    require_exists(archive)
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
    with reading(path, "an array"):  # numpy lets errors of Python's tokenizer through
        shape, _, dtype = headers[np.lib.format.read_magic(stream)](stream)
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


def require_file(path: Path) -> None:
    """Raises FileNotFoundError if there is no such file, and ValueError if it is a folder or empty."""
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder, expected a recording")
    require_exists(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")


def declared_frames(sound: soundfile.SoundFile, path: str | Path) -> int:
    """The number of samples per channel that the header of an open file declares. It is `sound.frames`, or
    more if the file is cut off; lengths of a file that was written to a pipe declare nothing."""
    declared, log = sound.frames, sound.extra_info
    # libsndfile corrects lengths beyond the end of the file, and its log says so.
    sizes = re.search(r"^ ?(?:data|SSND|  ?Data Size|riff) *: (\d+) \(should be (\d+)\)", log, re.M)
    if sizes and sound.format != "RF64":
        size, there = int(sizes[1]), int(sizes[2])
        if there < size < 0x7FFFF000 or (sound.format == "W64" and there < size < 1 << 62):
            declared = max(declared, round(sound.frames * size / max(there, 1)))
    if counts := re.search(r"frame count \d+ does not match value from 'ds64' chunk of (\d+)", log):
        declared = max(declared, int(counts[1]))
    if sound.format == "NIST":
        with open(path, "rb") as stream:
            count = re.search(rb"sample_count -i (\d+)", stream.read(1024))
        declared = max(declared, int(count[1])) if count else declared
    return declared


@contextlib.contextmanager
def _open_prepared(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Opens a file or a member of an archive, and checks that it has samples and is 16 kHz mono."""
    zipped = zip_range(path)
    if not zipped:
        require_file(Path(path))
    try:
        with open_zipped(path) if zipped else soundfile.SoundFile(os.fsencode(path)) as sound:
            for found, expected, unit in (
                (sound.samplerate, SAMPLE_RATE, "Hz"),
                (sound.channels, 1, "channels"),
            ):
                if found != expected:
                    raise ValueError(
                        f"{path}: found {found} {unit}, expected {expected}; run `resynth preprocess`"
                    )
            if sound.frames == 0:
                raise ValueError(f"{path}: the file has no samples")
            if not zipped and (declared := declared_frames(sound, path)) > sound.frames:
                raise ValueError(
                    f"{path} is cut off: it declares {declared / SAMPLE_RATE:.2f} s, found "
                    f"{sound.frames / SAMPLE_RATE:.2f} s; copy it again, or take what there is with "
                    "`resynth preprocess --accept-truncated`"
                )
            yield sound
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{path} is not readable as audio, or is damaged: {one_line(error)}"
        ) from error


def audio_length(path: str | Path) -> int:
    """The number of samples of a prepared file, from its header. Raises FileNotFoundError if it does not
    exist, and ValueError if it is empty, not readable as audio, or not 16 kHz mono."""
    with _open_prepared(path) as sound:
        return sound.frames


def read_audio(path: str | Path, start: int = 0, num_samples: int = -1) -> np.ndarray:
    """Reads (T,) float32 in [-1, 1] from a prepared file or archive member, `archive.zip:offset:length`:
    `num_samples` from sample `start` on (-1: to the end), fewer where it ends. Raises as `audio_length` does,
    and ValueError if there are non-finite samples."""
    with _open_prepared(path) as sound:
        start = sound.seek(min(start, sound.frames))
        left = sound.frames - start
        wanted = left if num_samples < 0 else min(num_samples, left)
        # In blocks, since a damaged header can claim any number of samples.
        wav = np.concatenate([*_blocks(sound, wanted)] or [np.zeros(0, np.float32)])
        is_estimate = sound.format == "MP3"  # its length
        if not is_estimate and len(wav) < wanted:
            raise ValueError(
                f"{path} is damaged or cut off: expected {wanted} samples from {start} on, found {len(wav)}"
            )
    require_finite(path, wav)
    return wav


def _blocks(sound: soundfile.SoundFile, count: int) -> Iterator[np.ndarray]:
    while count > 0 and len(block := sound.read(min(count, 1 << 20), dtype="float32")):
        count -= len(block)
        yield block


def require_finite(path: str | Path, wav: np.ndarray) -> None:
    """Raises ValueError with the place of the first sample of (T,) that is not finite."""
    if not np.isfinite(wav).all():
        first = int(np.flatnonzero(~np.isfinite(wav))[0])
        raise ValueError(f"{path}: sample {first} is {wav[first]}, expected finite numbers")


def resample(wav: np.ndarray, from_rate: int, to_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(ceil(T * to_rate / from_rate),) float32 of (T,), by soxr at its highest quality; rates in Hz. Its cost
    does not depend on the ratio of the rates. Raises ValueError if a rate is not positive."""
    if from_rate == to_rate:
        return wav
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(
            f"cannot resample from {from_rate} to {to_rate} Hz, expected rates above 0"
        )
    import soxr

    length = -(-len(wav) * to_rate // from_rate)
    return fit_length(soxr.resample(wav, from_rate, to_rate, quality="VHQ"), length)


def fit_length(wav: np.ndarray, length: int) -> np.ndarray:
    """The first `length` samples of (T,), with zeros at the end if there are fewer."""
    return np.pad(wav[:length], (0, max(0, length - len(wav))))


def write_audio(
    path: str | Path,
    wav: np.ndarray | Iterable[np.ndarray],
    sample_rate: int = SAMPLE_RATE,
    subtype: str = "PCM_16",
) -> int:
    """Writes a mono .wav or .flac file atomically, and returns its number of samples. `wav` is (T,) float in
    [-1, 1], or (n,) pieces of it; PCM_16 clips samples outside of this range, FLOAT does not, and exists for
    .wav only. Raises ValueError if there are non-finite samples, or libsndfile cannot write the format."""
    path, count = Path(path), 0
    pieces = [wav] if isinstance(wav, np.ndarray) else wav
    if not soundfile.check_format(path.suffix[1:].upper(), subtype):
        raise ValueError(
            f"{path}: cannot write {subtype} as {path.suffix!r}, expected .wav or .flac"
        )
    kind = path.suffix[1:].upper()
    with atomic_path(path) as temporary, _CheckedFile(temporary, "w+") as file:
        with soundfile.SoundFile(file, "w", sample_rate, 1, subtype, format=kind) as stream:
            for piece in pieces:
                require_finite(path, np.asarray(piece))
                stream.write(piece)
                count += len(piece)
        file.remove_time()
        if file.failure is not None:
            raise file.failure
    return count


class _CheckedFile(io.FileIO):
    """A file for libsndfile, which does not report that the end of a FLAC file could not be written."""

    failure: OSError | None = None

    def write(self, block: bytes) -> int:  # type: ignore[override]
        """Writes all of a block, or keeps the reason in `failure`."""
        written = 0
        try:
            while self.failure is None and written < len(block):
                written += super().write(block[written:])
        except OSError as error:
            self.failure = error
        return len(block)

    def remove_time(self) -> None:
        """Zeroes the time of writing in the header of a WAV of floats: equal samples give equal files."""
        self.seek(0)
        if (peaks := self.read(128).find(b"PEAK")) > 0:
            self.seek(peaks + 12)  # after the name, the size and the version of the chunk
            self.write(bytes(4))


def pad_to_multiple(wav: np.ndarray, multiple: int) -> np.ndarray:
    """Appends zeros to (T,) so that the length is a multiple of `multiple` samples."""
    return np.pad(wav, (0, -len(wav) % multiple))
