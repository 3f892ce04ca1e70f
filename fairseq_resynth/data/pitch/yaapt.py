"""YAAPT with its loops compiled: the algorithm and the results of `amfm_decompy.pYAAPT` in less time.

Zahorian and Hu, "A spectral/temporal method for robust fundamental frequency tracking", JASA 123(6), 2008:
spherical harmonics of the squared signal give a rough track (`data.yaapt_spectrum`), normalised
cross-correlation (Talkin's RAPT) gives candidates near it, dynamic programming chooses among them. What
loops over frames, candidates and lags is written here for numba; the rest is the library's, in a copy of its
module that has these in their place. A version of the library that was not compared with them runs as it is.
"""

import importlib.metadata
import importlib.util
import types
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from scipy.interpolate import pchip
from scipy.signal import lfilter, medfilt
from scipy.signal.windows import kaiser

compiled = njit(cache=True, error_model="numpy")  # 0 / 0 is NaN, as in numpy
_BLOCK = 128  # numpy adds so many in eight partial sums, and more as the sum of two halves


@compiled
def _block_sum(values: np.ndarray, start: int, count: int) -> float:
    """Sums in eight parts."""
    a, b, c, d, e, f, g, h = (0.0,) * 8
    done = start + count - count % 8
    for i in range(start, done, 8):
        a, b, c, d = a + values[i], b + values[i + 1], c + values[i + 2], d + values[i + 3]
        e, f, g, h = e + values[i + 4], f + values[i + 5], g + values[i + 6], h + values[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(done, start + count):
        total += values[i]
    return total


@compiled
def _half(count: int) -> int:
    return count // 2 - count // 2 % 8


# One function a level: numba's cache cannot load a function that calls itself.
@compiled
def _sum_of_two(values: np.ndarray, start: int, count: int) -> float:
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half = _half(count)
    return _block_sum(values, start, half) + _block_sum(values, start + half, count - half)


@compiled
def _sum_of_four(values: np.ndarray, start: int, count: int) -> float:
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half = _half(count)
    return _sum_of_two(values, start, half) + _sum_of_two(values, start + half, count - half)


@compiled
def pairwise_sum(values: np.ndarray, start: int, count: int) -> float:
    """Returns the sum of `count` values, up to 900, as `np.sum` of a contiguous row adds them."""
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half = _half(count)
    return _sum_of_four(values, start, half) + _sum_of_four(values, start + half, count - half)


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


COMPARED_VERSIONS = ("1.0.12", "1.0.12.1", "1.0.12.2")


@cache
def yaapt_module(use_compiled: bool = True) -> types.ModuleType:
    """Returns a copy of `amfm_decompy.pYAAPT`, with compiled parts if its version was compared with them."""
    spec = importlib.util.find_spec("amfm_decompy.pYAAPT")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if use_compiled and importlib.metadata.version("amfm_decompy") in COMPARED_VERSIONS:
        module.path1, module.time_track = cheapest_path, time_track
        module.spec_track = SpectralTrack(module)
        module.PitchObj.set_values = _keep_frames
    return module


def _keep_frames(pitch: Any, values: np.ndarray, size: int) -> None:
    """Keeps F0 by frame, and leaves out the library's track by sample, which nobody asks for."""
    pitch.samp_values = values


@compiled
def _last_smallest(values: np.ndarray) -> int:
    """Returns the last of equal minima; a NaN counts as the smallest, as numpy's argmin has it."""
    best = len(values) - 1
    for i in range(len(values) - 2, -1, -1):
        if np.isnan(values[best]):
            break
        if values[i] < values[best] or np.isnan(values[i]):
            best = i
    return best


@compiled
def cheapest_path(local: np.ndarray, transitions: np.ndarray, rows: int, frames: int) -> np.ndarray:
    """Dynamic programming over candidates.

    Args:
        local: (rows, frames) cost of each candidate.
        transitions: (rows, rows, frames) cost of coming from the first to the second.
        rows: candidates a frame.
        frames: how many.

    Returns:
        (frames,) int64 candidates of the cheapest path.
    """
    before = np.zeros((rows, frames), dtype=np.int64)
    path = np.zeros(frames, dtype=np.int64)
    cost, next_cost, arriving = local[:, 0].copy(), np.zeros(rows), np.zeros(rows)
    for frame in range(1, frames):
        for row in range(rows):
            for origin in range(rows):
                arriving[origin] = cost[origin] + transitions[origin, row, frame]
            best = _last_smallest(arriving)
            before[row, frame] = best
            next_cost[row] = arriving[best] + local[row, frame]
        cost[:] = next_cost
    if frames > 1:
        path[-1] = _last_smallest(cost)
    for frame in range(frames - 2, -1, -1):
        path[frame] = before[path[frame + 1], frame + 1]
    return path


@compiled
def _take_mean_off(frame: np.ndarray) -> None:
    frame -= pairwise_sum(frame, 0, len(frame)) / len(frame)


@compiled
def _normalise(frame, low, products, power, phi, squares):
    """Fills phi from lag `low` on: products over the root of the energies of both pieces."""
    count = len(frame) - low - len(products)
    for i in range(low, len(frame)):
        squares[i] = frame[i] * frame[i]
    phi[:] = 0.0
    for i in range(len(products)):
        phi[low + i] = products[i] / np.sqrt(pairwise_sum(squares, low + i, count) * power)


@compiled
def _insert(lags: np.ndarray, merits: np.ndarray, filled: int, lag: int, merit: float) -> int:
    """Keeps the best candidates in falling order of merit, the earlier of equals first."""
    place = filled
    while place > 0 and merit > merits[place - 1]:
        place -= 1
    if place == len(merits):
        return filled
    for i in range(min(filled, len(merits) - 1), place, -1):
        lags[i], merits[i] = lags[i - 1], merits[i - 1]
    lags[place], merits[place] = lag, merit
    return min(filled + 1, len(merits))


@compiled
def _candidates(phi, low, high, centre, least, enough, lags, merits):
    """Finds the peaks of a correlation; one above `enough` is alone. Unused candidates have lag 0."""
    lags[:], merits[:] = 0, 0.0
    largest = phi.max() if not np.isnan(phi).any() else np.nan
    filled = best = 0
    for n in range(low + centre, high - centre + 1):
        if phi[n] > phi[n - 1] and phi[n] > phi[n + 1] and phi[n] > least:
            if best == 0 or phi[n] > phi[best]:
                best = n
            if np.argmax(phi[n - centre : n + centre + 1]) == centre:
                filled = _insert(lags, merits, filled, n, phi[n])
    if best and largest > enough:
        lags[:], merits[:] = 0, 0.0
        lags[0], merits[0] = best, phi[best]
    if merits[0] > 1.0:
        merits /= merits[0]


def _track_frames(
    data: np.ndarray, jump: int, low: list[int], high: list[int], size: int, *settings
):
    """Returns lags (candidates, frames) and merits of the candidates of every frame; changes `data`.

    The products are numpy's, since ties between candidates are common and BLAS orders its sums by processor.
    """
    *peak_settings, maximum = settings
    lags, merits = np.zeros((len(low), maximum), np.int64), np.zeros((len(low), maximum))
    phi, squares = np.zeros(size), np.zeros(size)
    for frame, (first, last) in enumerate(zip(low, high, strict=True)):
        # frames overlap and each takes its mean off the signal itself, as in the library
        start, count = frame * jump, size - last
        piece = data[start : start + size]
        _take_mean_off(piece)
        shifted = np.ndarray(
            (last - first, count), np.float64, data, 8 * (start + first), strides=(8, 8)
        )
        fixed = piece[:count]
        _normalise(piece, first, shifted.dot(fixed), fixed.dot(fixed), phi, squares)
        _candidates(phi, first, last, *peak_settings, lags[frame], merits[frame])
    return lags.T, merits.T


def time_track(
    signal: Any, spec_pitch: np.ndarray, pitch_std: float, pitch: Any, parameters: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates by correlation, near a rough track; arguments are those of the library's `time_track`.

    Returns:
        Hz and merits, (candidates, frames) each.

    Raises:
        ValueError: the rough track leaves no lag to look at, or frames are too short for the longest.
    """
    size, jump = int(parameters["tda_frame_length"] * signal.fs / 1000), pitch.frame_jump
    frames = min(int((len(signal.data) - size + jump) / jump), len(spec_pitch))
    track, half = spec_pitch[:frames], int(parameters["nccf_pwidth"] / 2)
    highest = np.minimum(track + 2.0 * pitch_std, parameters["f0_max"])
    lowest = np.maximum(track - 2.0 * pitch_std, parameters["f0_min"])
    lags = np.trunc(signal.new_fs / highest) - half, np.trunc(signal.new_fs / lowest) + half
    if not (np.isfinite(lags).all() and (lags[0] < lags[1]).all() and (lags[1] < size).all()):
        raise ValueError("no lags between the longest and the shortest period")
    found, merits = _track_frames(
        np.array(signal.filtered, dtype=np.float64),
        jump,
        *(lag.astype(np.int64).tolist() for lag in lags),
        size,
        half,
        parameters["nccf_thresh1"],
        parameters["nccf_thresh2"],
        parameters["nccf_maxcands"],
    )
    hertz = np.where(found > 0, signal.new_fs / (found + 1.0), 0.0)
    distance, limit = np.abs(hertz - track), 5.0 * pitch_std
    match = (1 - distance / limit) * (distance < limit)
    return hertz, (1 + parameters["merit_boost"]) * merits * match
