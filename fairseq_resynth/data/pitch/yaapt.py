"""YAAPT with compiled loops: the algorithm and the results of `amfm_decompy.pYAAPT` in less time.

Zahorian and Hu, "A spectral/temporal method for robust fundamental frequency tracking", JASA 123(6), 2008:
spectral harmonics correlation gives a rough track, normalized cross-correlation (as in Talkin's RAPT) gives
candidates near it, and dynamic programming chooses among them. The loops over frames, candidates and lags are
compiled by numba here and replace the library's functions in a copy of its module. A version of the library
whose results were not compared with these loops runs unchanged. The loops allocate nothing and take single
numbers, since numpy's functions and assignments to slices take several times as long to compile.
"""

import importlib.metadata
import importlib.util
import types
from functools import cache, partial
from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from scipy.interpolate import pchip
from scipy.signal import lfilter, medfilt
from scipy.signal.windows import kaiser

compiled: Any = partial(njit, cache=True, error_model="numpy")  # 0 / 0 is NaN, as in numpy
_BLOCK = 128  # numpy adds up to 128 values in eight partial sums, and more of them as the sum of two halves


# Without its types, numba would compile a function once more for calls with a literal number.
@compiled("float64(float64[::1], int64, int64)")
def _block_sum(values: np.ndarray, start: int, count: int) -> float:
    a, b, c, d, e, f, g, h = (0.0,) * 8
    done = start + count - count % 8
    for i in range(start, done, 8):
        a, b, c, d = a + values[i], b + values[i + 1], c + values[i + 2], d + values[i + 3]
        e, f, g, h = e + values[i + 4], f + values[i + 5], g + values[i + 6], h + values[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(done, start + count):
        total += values[i]
    return total


@compiled("float64(float64[::1], int64, int64)")
def pairwise_sum(values: np.ndarray, start: int, count: int) -> float:
    """The sum of `count` values, up to 512, in the order in which `np.sum` adds a contiguous row. YAAPT
    chooses between candidates that often differ by rounding only, so another order of additions would choose
    others. Frames have 400 samples."""
    if count <= _BLOCK:
        return _block_sum(values, start, count)
    half, total = count // 2 - count // 2 % 8, 0.0
    # The second halving is written out, because numba cannot cache a function that calls itself.
    for first, size in ((start, half), (start + half, count - half)):
        quarter = size // 2 - size // 2 % 8 if size > _BLOCK else 0
        rest = _block_sum(values, first + quarter, size - quarter)
        total += _block_sum(values, first, quarter) + rest
    return total


_FRAMES_AT_ONCE = 64  # spectra in memory together, 64 kB each
_TYPICAL = 150.0  # Hz, the track of a recording with two voiced frames or fewer


@compiled()
def _harmonics(
    magnitude, row: np.ndarray, low: int, high: int, count: int, found: np.ndarray
) -> None:
    """Fills `found` with the spectral harmonics correlation of each frequency from low to high, in bins: the
    product of the magnitudes at `count` multiples of the frequency, summed over a window of `row`'s size."""
    width = len(row)
    for number in range(high - low + 1):
        for column in range(width):
            product = 1.0
            for multiple in range(1, count + 1):
                product *= magnitude[(low + number) * multiple + column]
            row[column] = product
        found[low - 1 + number] = pairwise_sum(row, 0, width)


@compiled("int64(int64[::1], float64[::1], int64, int64, float64)")
def _insert(lags: np.ndarray, merits: np.ndarray, filled: int, lag: int, merit: float) -> int:
    """Inserts a candidate in descending order of merit; equal ones stay in order. Returns the new count."""
    place = filled
    while place > 0 and merit > merits[place - 1]:
        place -= 1
    if place == len(merits):
        return filled
    for i in range(min(filled, len(merits) - 1), place, -1):
        lags[i], merits[i] = lags[i - 1], merits[i - 1]
    lags[place], merits[place] = lag, merit
    return min(filled + 1, len(merits))


@compiled()
def _is_highest(values: np.ndarray, place: int, half: int) -> bool:
    """Whether a value is the first maximum of those up to `half` places away; False beside NaN."""
    for i in range(1, half + 1):
        if not (values[place] > values[place - i] and values[place] >= values[place + i]):
            return False
    return True


@compiled()
def _peaks(data, low, high, half, least_ratio, threshold, bins, merits):
    """Fills `bins` (0 = none) and `merits` with the highest peaks; missing ones repeat the first. Without a
    peak, for a flat spectrum, or with `most` peaks or more, they stay 0 and 1. Changes `data`."""
    largest = data[low]
    for n in range(low + 1, high + 1):
        largest = max(largest, data[n])
    if largest > 1e-14:
        for n in range(len(data)):
            data[n] /= largest
    average = pairwise_sum(data, low, high + 1 - low) / (high + 1 - low)
    if average > 1 / least_ratio:
        return
    most, count, too_many = len(bins), 0, False
    for n in range(low + half + 1, high - half + 1):
        if not (data[n] > data[n - 1] and data[n] > data[n + 1] and data[n] > threshold * average):
            continue
        if _is_highest(data, n, half):
            if count == most - 1:
                too_many = True
                break
            count = _insert(bins, merits, count, n, data[n])
    if too_many or not (count and merits[0] / average >= least_ratio):
        count, bins[0], merits[0] = 0, 0, 1.0
    for i in range(count, most):
        bins[i], merits[i] = bins[0], merits[0]


def spectral_track(
    module: types.ModuleType, signal: Any, pitch: Any, parameters: dict[str, Any]
) -> tuple[np.ndarray, float]:
    """Replaces `spec_track` in a copy of the library's module, whose dynamic programming it uses. Returns the
    rough track, (frames,) Hz without gaps, and the deviation in Hz to search around it."""
    hertz, merits = _spectral_candidates(signal, pitch, parameters)
    voiced, rough = hertz[0] > 0, hertz[0].copy()
    track = np.full(max(1, voiced.sum()), _TYPICAL)
    if voiced.sum() > 2:
        track = _choose(module, hertz[:, voiced], merits[:, voiced], parameters)
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


def _choose(module: types.ModuleType, hertz: np.ndarray, merits: np.ndarray, parameters: dict):
    """Chooses among the candidates of voiced frames, (candidates, frames) each."""
    columns, order = np.arange(hertz.shape[1]), max(1, parameters["median_value"] - 2)
    mean, deviation = np.mean(hertz[0]), np.std(hertz[0])
    likely = (np.abs(hertz - 0.8 * mean) * (3 - merits)).argmin(0)
    hertz[likely, columns] = medfilt(hertz[likely, columns], order)
    weight = parameters["dp5_k1"] * deviation / mean
    return medfilt(module.dynamic5(hertz, merits, weight, parameters["f0_min"]), order)


def _spectral_candidates(signal: Any, pitch: Any, parameters: dict[str, Any]):
    """Candidates in Hz (0 = none) and their merits, (candidates, frames) each."""
    size, bin_hertz = 2 * pitch.frame_size, signal.new_fs / pitch.nfft
    width = int(parameters["shc_window"] / bin_hertz)
    # First and last bin of the correlation, and of its peaks, which are `peak` bins wide.
    peak = int(parameters["shc_pwidth"] / bin_hertz) | 1
    half = -(-peak // 2)
    low = int(np.ceil(parameters["f0_min"] / bin_hertz))
    high = int((parameters["f0_max"] + 2 * parameters["shc_pwidth"]) / bin_hertz)
    first = max(1, int(parameters["f0_min"] / bin_hertz - half))
    last = min(high - peak, int(parameters["f0_max"] / bin_hertz + half))
    most, padding = parameters["shc_maxpeaks"], size + (pitch.nframes - 1) * pitch.frame_jump
    padded = np.append(signal.filtered, np.zeros(padding - signal.size))
    frames = sliding_window_view(padded, size)[:: pitch.frame_jump]
    bins = np.zeros((pitch.nframes, most), dtype=np.int64)
    merits = np.ones((pitch.nframes, most))
    voiced = np.flatnonzero(pitch.vuv)
    for start in range(0, len(voiced), _FRAMES_AT_ONCE):
        rows = voiced[start : start + _FRAMES_AT_ONCE]
        pieces = frames[rows] * kaiser(size, 0.5)
        pieces -= pieces.mean(axis=1, keepdims=True)
        magnitude = np.pad(np.abs(np.fft.rfft(pieces, pitch.nfft)), ((0, 0), (width // 2, 0)))
        row, data = np.empty(width | 1), np.zeros(high)
        _track(magnitude, row, data, low, high, parameters["shc_numharms"] + 1, first, last, half,
               parameters["shc_thresh1"], parameters["shc_thresh2"], rows, bins, merits)  # fmt: skip
    return np.ascontiguousarray(bins.T) * bin_hertz, np.ascontiguousarray(merits.T)


@compiled()
def _track(
    magnitude, row, data, low, high, count, first, last, half, ratio, threshold, rows, bins, merits
):
    """Fills `bins` and `merits` for the frames `rows`."""
    for i in range(len(rows)):
        frame = rows[i]
        _harmonics(magnitude[i], row, low, high, count, data)
        _peaks(data, first, last, half, ratio, threshold, bins[frame], merits[frame])


COMPARED_VERSIONS = ("1.0.12", "1.0.12.1", "1.0.12.2")


@cache
def yaapt_module() -> types.ModuleType:
    """A copy of `amfm_decompy.pYAAPT`, with the compiled loops if its version was compared with them."""
    spec: Any = importlib.util.find_spec("amfm_decompy.pYAAPT")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if importlib.metadata.version("amfm_decompy") in COMPARED_VERSIONS:
        module.path1, module.time_track = cheapest_path, time_track
        module.spec_track = partial(spectral_track, module)
        module.PitchObj.set_values = _keep_frames
    return module


def _keep_frames(pitch: Any, values: np.ndarray, size: int) -> None:
    """Replaces `PitchObj.set_values`, which would also interpolate a track per sample that is not needed."""
    pitch.samp_values = values


def cheapest_path(local: np.ndarray, transitions: np.ndarray, rows: int, frames: int) -> np.ndarray:
    """The candidates of the cheapest path, (frames,) int64, by dynamic programming. `local` is the (rows,
    frames) cost of each candidate, `transitions` the (rows, rows, frames) cost of a transition from the first
    candidate to the second."""
    before, path = np.zeros((rows, frames), dtype=np.int64), np.zeros(frames, dtype=np.int64)
    _fill_path(local, transitions, before, path, local[:, 0].copy(), np.zeros(rows))
    return path


@compiled()
def _fill_path(local, transitions, before, path, cost, next_cost):
    rows, frames = before.shape
    for frame in range(1, frames):
        for row in range(rows):
            best, least = 0, cost[0] + transitions[0, row, frame]
            for origin in range(1, rows):
                arriving = cost[origin] + transitions[origin, row, frame]
                if arriving <= least or np.isnan(arriving):  # the last of equal ones
                    best, least = origin, arriving
            before[row, frame], next_cost[row] = best, least + local[row, frame]
        cost, next_cost = next_cost, cost
    if frames > 1:
        for row in range(1, rows):
            if cost[row] <= cost[path[-1]] or np.isnan(cost[row]):
                path[-1] = row
    for frame in range(frames - 2, -1, -1):
        path[frame] = before[path[frame + 1], frame + 1]


@compiled()
def _normalize(frame, low, products, power, phi, squares):
    """Fills `phi` from lag `low` on: products divided by the root of the energies of both pieces."""
    count = len(frame) - low - len(products)
    for i in range(low, len(frame)):
        squares[i] = frame[i] * frame[i]
    for i in range(len(phi)):
        phi[i] = 0.0
    for i in range(len(products)):
        phi[low + i] = products[i] / np.sqrt(pairwise_sum(squares, low + i, count) * power)


@compiled()
def _candidates(phi, low, high, half, least, enough, lags, merits):
    """Finds the peaks of a correlation; a peak above `enough` excludes all others. Unused ones have lag 0."""
    largest = phi[0]
    for value in phi:
        if value > largest or np.isnan(value):
            largest = value
    filled = best = 0
    for n in range(low + half, high - half + 1):
        if phi[n] > phi[n - 1] and phi[n] > phi[n + 1] and phi[n] > least:
            if best == 0 or phi[n] > phi[best]:
                best = n
            if _is_highest(phi, n, half):
                filled = _insert(lags, merits, filled, n, phi[n])
    if best and largest > enough:
        for i in range(len(lags)):
            lags[i], merits[i] = 0, 0.0
        lags[0], merits[0] = best, phi[best]
    scale = merits[0]
    if scale > 1.0:
        for i in range(len(merits)):
            merits[i] /= scale


def _track_frames(
    data: np.ndarray, jump: int, low: list[int], high: list[int], size: int, *settings
):
    """Lags and merits of the candidates of every frame, (candidates, frames) each; changes `data`. The
    products are computed by numpy as in the library: ties between candidates are common, and the order in
    which BLAS adds depends on the processor."""
    *peak_settings, maximum = settings
    lags, merits = np.zeros((len(low), maximum), np.int64), np.zeros((len(low), maximum))
    phi, squares = np.zeros(size), np.zeros(size)
    for frame, (first, last) in enumerate(zip(low, high, strict=True)):
        # Frames overlap, and each subtracts its mean from the signal itself, as in the library.
        start, count = frame * jump, size - last
        piece = data[start : start + size]
        piece -= pairwise_sum(piece, 0, size) / size
        shifted = np.ndarray(
            (last - first, count), np.float64, data, 8 * (start + first), strides=(8, 8)
        )
        fixed = piece[:count]
        _normalize(piece, first, shifted.dot(fixed), fixed.dot(fixed), phi, squares)
        _candidates(phi, first, last, *peak_settings, lags[frame], merits[frame])
    return lags.T, merits.T


def time_track(
    signal: Any, spec_pitch: np.ndarray, pitch_std: float, pitch: Any, parameters: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces the library's `time_track`: candidates by correlation near a rough track, in Hz, and their
    merits, (candidates, frames) each. Raises ValueError if the frame is shorter than the longest period."""
    size, jump = int(parameters["tda_frame_length"] * signal.fs / 1000), pitch.frame_jump
    frames = min(int((len(signal.data) - size + jump) / jump), len(spec_pitch))
    track, half = spec_pitch[:frames], int(parameters["nccf_pwidth"] / 2)
    highest = np.minimum(track + 2.0 * pitch_std, parameters["f0_max"])
    lowest = np.maximum(track - 2.0 * pitch_std, parameters["f0_min"])
    lags = np.trunc(signal.new_fs / highest) - half, np.trunc(signal.new_fs / lowest) + half
    if not (np.isfinite(lags).all() and (lags[0] < lags[1]).all() and (lags[1] < size).all()):
        raise ValueError(
            f"{size} samples per frame do not contain a period of {parameters['f0_min']:g} Hz; expected a "
            "higher minimum F0"
        )
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
