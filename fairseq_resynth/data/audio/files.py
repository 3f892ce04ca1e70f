"""Audio files: readers of prepared files (16 kHz mono) and of any others, resampling, and a writer.

A waveform in this package is a (T,) float32 array in [-1, 1]. Prepared audio may be in ZIP archives, stored
without compression, by fairseq's paths `archive.zip:offset:length`: offset and length, in bytes, are those of
the member's own data, a FLAC, WAV or NumPy file, as fairseq.data.audio.audio_utils defines them.
"""

import contextlib
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.storage.files import atomic_path

# Streams without a header: the file's suffix determines the demuxer.
_HEADERLESS = {".g722": "g722", ".g726": "g726", ".al": "alaw", ".ul": "mulaw", ".gsm": "gsm"}
# Suffixes that `resynth preprocess` searches for without --postfix.
_HEADED = ".wav .flac .ogg .opus .oga .mp3 .m4a .aac .aif .aiff .au .caf .w64 .sph .wma .webm .mp4 .amr .ac3"
AUDIO_SUFFIXES = frozenset(_HEADED.split()) | frozenset(_HEADERLESS)
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


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")


@contextlib.contextmanager
def _open_prepared(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Opens a file or a member of an archive, and checks that it has samples and is 16 kHz mono."""
    zipped = zip_range(path)
    if not zipped:
        _require_file(Path(path))
    try:
        with open_zipped(path) if zipped else soundfile.SoundFile(path) as sound:
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
            yield sound
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not readable as audio: {error}") from error


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
        sound.seek(min(start, sound.frames))
        wav = sound.read(num_samples, dtype="float32")
    _require_finite(path, wav)
    return wav


def _require_finite(path: str | Path, wav: np.ndarray) -> None:
    if not np.isfinite(wav).all():
        first = int(np.flatnonzero(~np.isfinite(wav))[0])
        raise ValueError(f"{path}: sample {first} is {wav[first]}, expected finite numbers")


def load_any_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Reads any audio that libsndfile or FFmpeg (PyAV) decodes: (T,) float32, channels averaged, and its own
    rate in Hz; lossy formats may exceed 1. Raises FileNotFoundError if there is no file, ValueError if it is
    not audio or has non-finite or no samples."""
    path = Path(path)
    _require_file(path)
    headerless = _HEADERLESS.get(path.suffix.lower())
    try:
        if headerless:
            wav, rate = _decode_with_av(path, headerless)
        else:
            wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        wav, rate = _decode_with_av(path)
    if len(wav) == 0:
        raise ValueError(f"{path}: the file has no samples")
    wav = wav.mean(axis=1) if wav.shape[1] > 1 else wav[:, 0]
    _require_finite(path, wav)
    return np.ascontiguousarray(wav, dtype=np.float32), int(rate)


def _decode_with_av(path: Path, demuxer: str | None = None) -> tuple[np.ndarray, int]:
    """Decodes a file to (T, channels) float32 and its rate."""
    import av

    try:
        with av.open(str(path), format=demuxer) as container:
            if not container.streams.audio:
                raise ValueError(f"{path} has no audio stream")
            rate = container.streams.audio[0].codec_context.sample_rate
            resampler = av.AudioResampler(format="fltp", rate=rate)
            frames = [
                converted.to_ndarray()
                for frame in itertools.chain(container.decode(audio=0), [None])  # None: flush
                for converted in resampler.resample(frame)
            ]
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is not readable as audio: {error}") from error
    return np.concatenate(frames, axis=1).T if frames else np.zeros((0, 1)), rate


def resample(wav: np.ndarray, from_rate: int, to_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(ceil(T * to_rate / from_rate),) float32 of (T,), by torchaudio's windowed sinc; rates in Hz."""
    if from_rate == to_rate:
        return wav
    import torch
    from torchaudio.functional import resample as sinc_resample

    with torch.inference_mode():
        return sinc_resample(torch.from_numpy(wav), from_rate, to_rate).numpy()


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
    with (
        atomic_path(path) as temporary,
        soundfile.SoundFile(temporary, "w", sample_rate, 1, subtype) as stream,
    ):
        for piece in pieces:
            _require_finite(path, np.asarray(piece))
            stream.write(piece)
            count += len(piece)
    return count


def pad_to_multiple(wav: np.ndarray, multiple: int) -> np.ndarray:
    """Appends zeros to (T,) so that the length is a multiple of `multiple` samples."""
    return np.pad(wav, (0, -len(wav) % multiple))
