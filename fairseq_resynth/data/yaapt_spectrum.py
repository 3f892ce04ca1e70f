"""The rough track of YAAPT, from spherical harmonics correlation: spectra in batches, loops compiled.

The algorithm is that of Zahorian and Hu (2008), with the results of `spec_track` in `amfm_decompy.pYAAPT`.
"""

import types
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.interpolate import pchip
from scipy.signal import lfilter, medfilt
from scipy.signal.windows import kaiser

from fairseq_resynth.data.numpy_sums import compiled, pairwise_sum

_FRAMES_AT_ONCE = 64  # spectra in memory together, 64 kB each
_TYPICAL = 150.0  # Hz, where hardly a frame is voiced


@compiled
def _harmonics(magnitude: np.ndarray, width: int, low: int, high: int, count: int) -> np.ndarray:
    """Sums over a window the product of `count` multiples of each frequency low … high, in bins."""
    found, row = np.zeros(high), np.empty(width)
    for number in range(high - low + 1):
        for column in range(width):
            product = 1.0
            for multiple in range(1, count + 1):
                product *= magnitude[(low + number) * multiple + column]
            row[column] = product
        found[low - 1 + number] = pairwise_sum(row, 0, width)
    return found


@compiled
def _peaks(data, low, high, centre, most, least_ratio, threshold, bins, merits):
    """Fills bins (0 = none) and merits of the highest peaks, the first in place of those that are missing.

    No peak, a flat spectrum or `most` peaks and more: no bins, merits 1.
    """
    bins[:], merits[:] = 0, 1.0
    largest = data[low : high + 1].max()
    if largest > 1e-14:
        data = data / largest
    average = pairwise_sum(data, low, high + 1 - low) / (high + 1 - low)
    if average > 1 / least_ratio:
        return
    found = np.zeros(most, dtype=np.int64)
    count = 0
    for n in range(low + centre + 1, high - centre + 1):
        if not (data[n] > data[n - 1] and data[n] > data[n + 1] and data[n] > threshold * average):
            continue
        if np.argmax(data[n - centre : n + centre + 1]) == centre:
            if count == most - 1:
                return
            found[count] = n
            count += 1
    for place in range(1, count):  # in falling order, the earlier of equals first
        n, before = found[place], place
        while before > 0 and data[found[before - 1]] < data[n]:
            found[before] = found[before - 1]
            before -= 1
        found[before] = n
    if count == 0 or data[found[0]] / average < least_ratio:
        return
    for place in range(most):
        bins[place] = found[place if place < count else 0]
        merits[place] = data[bins[place]]


class SpectralTrack:
    """In place of `spec_track` of a copy of the library's module, which gives the dynamic programming.

    Args:
        module: the copy.
    """

    def __init__(self, module: types.ModuleType):
        self._module = module

    def __call__(
        self, signal: Any, pitch: Any, parameters: dict[str, Any]
    ) -> tuple[np.ndarray, float]:
        """Returns (frames,) Hz without gaps, and the deviation in Hz to look around it."""
        hertz, merits = self._candidates(signal, pitch, parameters)
        voiced = hertz[0] > 0
        track = self._choose(hertz[:, voiced], merits[:, voiced], parameters)
        rough = hertz[0].copy()
        if not voiced.any():
            rough[0] = 0
        mean = np.mean(track)
        deviation = np.maximum(np.std(track), mean * parameters["spec_pitch_min_std"])
        rough[voiced] = track[: voiced.sum()]
        for end in (0, -1):
            if rough[end] < mean / 2:
                rough[end] = mean
        known = np.flatnonzero(rough)
        filled = lfilter(np.ones(3) / 3, 1.0, pchip(known, rough[known])(range(pitch.nframes)))
        filled[0], filled[1] = filled[2], filled[3]
        return filled, deviation

    def _choose(
        self, hertz: np.ndarray, merits: np.ndarray, parameters: dict[str, Any]
    ) -> np.ndarray:
        """Chooses among the candidates of voiced frames, (candidates, frames) each."""
        frames, order = hertz.shape[1], max(1, parameters["median_value"] - 2)
        if frames <= 2:
            return np.full(max(1, frames), _TYPICAL)
        columns = np.arange(frames)
        mean, deviation = np.mean(hertz[0]), np.std(hertz[0])
        likely = (np.abs(hertz - 0.8 * mean) * (3 - merits)).argmin(0)
        hertz[likely, columns] = medfilt(hertz[likely, columns], order)
        weight = parameters["dp5_k1"] * deviation / mean
        chosen = self._module.dynamic5(hertz, merits, weight, parameters["f0_min"])
        return medfilt(chosen, order)

    def _candidates(self, signal: Any, pitch: Any, parameters: dict[str, Any]):
        """Returns Hz (0 = none) and merits, (candidates, frames) each, of the frames with energy."""
        size, bin_hertz = 2 * pitch.frame_size, signal.new_fs / pitch.nfft
        width = int(parameters["shc_window"] / bin_hertz)
        half = width // 2
        bounds = _bounds(parameters, bin_hertz)
        most, padding = parameters["shc_maxpeaks"], size + (pitch.nframes - 1) * pitch.frame_jump
        data = np.append(signal.filtered, np.zeros(padding - signal.size))
        frames = sliding_window_view(data, size)[:: pitch.frame_jump]
        bins = np.zeros((pitch.nframes, most), dtype=np.int64)
        merits = np.ones((pitch.nframes, most))
        voiced = np.flatnonzero(pitch.vuv)
        for start in range(0, len(voiced), _FRAMES_AT_ONCE):
            rows = voiced[start : start + _FRAMES_AT_ONCE]
            pieces = frames[rows] * kaiser(size, 0.5)
            pieces -= pieces.mean(axis=1, keepdims=True)
            magnitude = np.pad(np.abs(np.fft.rfft(pieces, pitch.nfft)), ((0, 0), (half, 0)))
            _track(magnitude, width | 1, *bounds, parameters["shc_thresh1"],
                   parameters["shc_thresh2"], rows, bins, merits)  # fmt: skip
        return np.ascontiguousarray(bins.T) * bin_hertz, np.ascontiguousarray(merits.T)


def _bounds(parameters: dict[str, Any], bin_hertz: float) -> tuple[int, ...]:
    """Returns, in bins: first and last of the correlation, harmonics, first and last peak, half a peak."""
    low = int(np.ceil(parameters["f0_min"] / bin_hertz))
    high = int((parameters["f0_max"] + 2 * parameters["shc_pwidth"]) / bin_hertz)
    width = int(parameters["shc_pwidth"] / bin_hertz) | 1
    centre = -(-width // 2)
    first = max(1, int(parameters["f0_min"] / bin_hertz - centre))
    last = min(high - width, int(parameters["f0_max"] / bin_hertz + centre))
    return low, high, parameters["shc_numharms"] + 1, first, last, centre


@compiled
def _track(
    magnitude, width, low, high, count, first, last, centre, ratio, threshold, rows, bins, merits
):
    """Fills bins and merits of some frames."""
    for i in range(len(rows)):
        data = _harmonics(magnitude[i], width, low, high, count)
        row = rows[i]
        _peaks(data, first, last, centre, bins.shape[1], ratio, threshold, bins[row], merits[row])
