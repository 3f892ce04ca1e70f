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

from fairseq_resynth.data.numpy_sums import compiled, pairwise_sum
from fairseq_resynth.data.yaapt_spectrum import SpectralTrack

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
