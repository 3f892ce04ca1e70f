"""F0 in Hz at 200 Hz: extraction from a waveform, and the reader of the cache that `resynth f0` writes.

Frame i of N = ceil(T / 80) is centered at sample 80 i. Unvoiced frames are 0.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.packed import FlatRows, MappedArray
from fairseq_resynth.data.storage.files import read_object

SHORTEST = 320  # samples: one unit, and one analysis frame of YAAPT
SILENCE_PEAK = 1e-3  # -60 dB of full scale; quieter waveforms are unvoiced
_SWIFT_HOP = 256  # samples between the frames of SwiftF0
_SWIFT_CONFIDENCE = 0.3  # of voiced frames; its own 0.5 misses twice as many in noise of 10 dB
_BLOCK, _CONTEXT = 30 * SAMPLE_RATE, SAMPLE_RATE  # samples, of `_yaapt_by_blocks`


@dataclass(frozen=True)
class F0Options:
    """Settings of the extraction: one of `METHODS`, and the lowest and highest F0 of the search in Hz. Raises
    ValueError if the method is unknown, or the range is empty or too wide."""

    method: str = "yaapt"
    f0_min: float = 60.0
    f0_max: float = 400.0

    def __post_init__(self) -> None:
        _check_known(self.method)
        if not 0 < self.f0_min < self.f0_max <= SAMPLE_RATE / 4:
            raise ValueError(
                f"found an F0 range of {self.f0_min} to {self.f0_max} Hz, expected "
                f"0 < minimum < maximum <= {SAMPLE_RATE // 4}"
            )


def num_frames(num_samples: Any) -> Any:
    """The number of F0 frames of a waveform, ceil(samples / 80); integers or arrays of them."""
    return -(-num_samples // F0_HOP)


def _yaapt(wav: np.ndarray, options: F0Options) -> np.ndarray:
    """YAAPT (Zahorian and Hu, 2008) with the settings of Polyak et al. (2021): 20 ms frames every 5 ms."""
    from amfm_decompy import basic_tools

    from fairseq_resynth.data.pitch.yaapt import yaapt_module

    # Half a frame of zeros on either side centers frame 0 at sample 0 and gives ceil(T / 80) frames.
    signal = basic_tools.SignalObj(np.pad(wav, 160), float(SAMPLE_RATE))
    pitch = yaapt_module().yaapt(
        signal,
        frame_length=20.0,
        frame_space=5.0,
        nccf_thresh1=0.25,
        tda_frame_length=25.0,
        f0_min=options.f0_min,
        f0_max=options.f0_max,
    )
    return pitch.samp_values


def _world(wav: np.ndarray, options: F0Options) -> np.ndarray:
    import pyworld

    settings = {"f0_floor": options.f0_min, "f0_ceil": options.f0_max, "frame_period": 5.0}
    if options.method == "harvest":
        return pyworld.harvest(wav, SAMPLE_RATE, **settings)[0]
    f0, times = pyworld.dio(wav, SAMPLE_RATE, **settings)
    return pyworld.stonemask(wav, f0, times, SAMPLE_RATE)


@functools.cache
def _swift_detector() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1, spin=False)  # the verbs run one process per core


def _swift(wav: np.ndarray, options: F0Options) -> np.ndarray:
    """SwiftF0 (Nieradzik, 2025, arXiv 2508.18440): its frames of 16 ms are interpolated to 5 ms.

    A frame at 200 Hz is voiced if the nearest frame of SwiftF0 is. log-F0 is interpolated linearly between
    two voiced frames and held where a voiced stretch begins or ends.
    """
    found = _swift_detector().detect(
        wav.astype(np.float32), SAMPLE_RATE, options.f0_min, options.f0_max
    )
    voiced, log_f0 = found.confidence >= _SWIFT_CONFIDENCE, np.log(found.pitch_hz)
    last = len(voiced) - 1
    position = np.minimum(np.arange(num_frames(len(wav))) * F0_HOP / _SWIFT_HOP, last)
    before = position.astype(int)
    after = np.minimum(before + 1, last)
    left = np.where(voiced[before], log_f0[before], log_f0[after])
    right = np.where(voiced[after], log_f0[after], log_f0[before])
    f0 = np.exp(left + (right - left) * (position - before))
    return np.where(voiced[np.rint(position).astype(int)], f0, 0.0)


def _yaapt_by_blocks(wav: np.ndarray, options: F0Options) -> np.ndarray:
    """F0 of recordings of over a minute in blocks of 30 s with a second of context on both sides, since
    YAAPT needs 16 MB of memory per second of audio."""
    if len(wav) <= 2 * _BLOCK:
        return _yaapt(wav, options)
    pieces = []
    for start in range(0, len(wav), _BLOCK):
        before = min(start, _CONTEXT)
        piece = wav[start - before : start + _BLOCK + _CONTEXT]
        wanted = num_frames(min(_BLOCK, len(wav) - start))
        f0 = np.zeros(num_frames(len(piece)))
        if len(piece) >= SHORTEST and np.abs(piece).max() >= SILENCE_PEAK:
            f0 = _yaapt(piece, options)
        pieces.append(f0[before // F0_HOP :][:wanted])
    return np.concatenate(pieces)


METHODS: dict[str, Callable[[np.ndarray, F0Options], np.ndarray]] = {
    "yaapt": _yaapt_by_blocks,
    "harvest": _world,
    "dio": _world,
    "swift": _swift,
}
# The modules that a method needs, its library first; worker processes import them once.
METHOD_MODULES = {
    "yaapt": ("amfm_decompy.pYAAPT", "numba.core.typed_passes", "fairseq_resynth.data.pitch.yaapt"),
    "harvest": ("pyworld",),
    "dio": ("pyworld",),
    "swift": ("swift_f0",),
}


def _check_known(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"F0 method {method!r} is unknown, expected {', '.join(METHODS)}")


def require_method(method: str) -> None:
    """Raises ValueError, with the command to run, if the library of an F0 method is missing."""
    _check_known(method)
    library = METHOD_MODULES[method][0]
    try:
        importlib.import_module(library)
    except ImportError as error:
        package, extra = library.partition(".")[0], "[eval]" if library == "pyworld" else ""
        raise ValueError(
            f"the F0 method {method} needs {package} ({error}): run `pip install "
            f"'fairseq_resynth{extra}'`" + (", or use the method yaapt" if extra else "")
        ) from error


def extract_f0(
    wav: np.ndarray, method: str = "yaapt", f0_min: float = 60.0, f0_max: float = 400.0
) -> np.ndarray:
    """The F0 of (T,) samples at 16 kHz of any level: (ceil(T / 80),) float32 Hz, 0 where unvoiced and in
    silence (peak below -60 dB of full scale). Options as in `F0Options`. Raises ValueError below 320 samples,
    if they are not finite, the method's library is missing, or the method failed."""
    options = F0Options(method, f0_min, f0_max)
    require_method(method)
    wav = np.asarray(wav, dtype=np.float32)
    if wav.ndim != 1 or len(wav) < SHORTEST:
        raise ValueError(
            f"too short for F0: found samples of shape {wav.shape}, expected ({SHORTEST},) or longer"
        )
    if not np.isfinite(wav).all():
        raise ValueError("the waveform has NaN or infinity in it, expected finite samples")
    peak, expected = np.abs(wav).max(), num_frames(len(wav))
    if peak < SILENCE_PEAK:
        return np.zeros(expected, dtype=np.float32)
    # The original scales to this peak, and YAAPT's close decisions depend on the last bits of its input.
    wav = wav.astype(np.float64) * (0.95 / peak)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of medians over the few frames of a short file
            f0 = METHODS[method](wav, options)
    except Exception as error:  # the library raises many kinds of errors; the caller names the file
        raise ValueError(f"{method} failed: {type(error).__name__}: {error}") from error
    if not np.isfinite(f0).all() or f0.min(initial=0) < 0:
        raise ValueError(f"{method} gave negative or non-finite values, expected frequencies")
    if not expected <= len(f0) <= expected + 1:  # pyworld counts the frame at the very end too
        raise ValueError(
            f"{method} gave {len(f0)} frames for {len(wav)} samples, expected {expected}"
        )
    return f0[:expected].astype(np.float32)


def compile_method(options: F0Options) -> None:
    """Runs a method on a second of a 100 Hz sawtooth, so that worker processes load what numba compiled."""
    with contextlib.suppress(ValueError):  # the first file reports the same error by name
        extract_f0(np.arange(SAMPLE_RATE) % 160 / 160 - 0.5, **asdict(options))


class F0Cache(FlatRows):
    """F0 of all utterances of a split, memory-mapped: `DATA/f0/{split}.npy`, with `lengths`, (rows,) int64
    frames, and the `description` in `{split}.json`. Raises FileNotFoundError if it is not finished, and
    ValueError if it was made from other rows than the manifest's, or is truncated."""

    dtype = np.float32

    def __init__(self, data_dir: str | Path, split: str, manifest: Manifest):
        path = Path(data_dir) / "f0" / f"{split}.npy"
        command = f"Run `resynth f0 {data_dir}`."
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist. {command}")
        self.description = read_object(path.with_suffix(".json"), command, rows=str)
        if self.description["rows"] != manifest.rows_hash():
            raise ValueError(f"{path} was made from another {manifest.source.name}. {command}")
        values = MappedArray(path, command)
        super().__init__(values, num_frames(manifest.num_samples))
        found, frames = values.array, int(self._ends[-1])
        if found.shape != (frames,) or found.dtype != np.float32:
            raise ValueError(
                f"{path} holds {found.shape} {found.dtype}, expected ({frames},) float32. {command}"
            )
        self._path, self._command = path, command

    def slice(self, row: int, start: int, length: int) -> np.ndarray:
        """F0 of a row in Hz from frame `start` on; raises ValueError if other tools wrote what is no F0."""
        f0 = super().slice(row, start, length)
        if len(wrong := f0[~((f0 >= 0) & (f0 < np.inf))]):
            raise ValueError(
                f"{self._path}: row {row + 1} has an F0 of {wrong[0]}, expected Hz, and 0 where unvoiced. "
                f"{self._command}"
            )
        return f0
