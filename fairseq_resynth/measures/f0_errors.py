"""Errors between two F0 tracks: VDE and FFE of the paper's Tables 1 and 2, and related measures.

A track is (N,) in Hz, 0 where unvoiced. Frame n of one is compared with frame n of the other, without time
warping. The longer track is cut to the shorter one's length if they differ by up to `TOLERANCE_FRAMES`.
"""

import numpy as np

# 0.2 s at 200 Hz: what padding to whole F0 codes (80 ms) and an encoder's edges can add
TOLERANCE_FRAMES = 40
GROSS_ERROR = 0.2  # the paper, Section 4.1: more than 20 % off


def align(
    reference: np.ndarray, estimate: np.ndarray, tolerance: int = TOLERANCE_FRAMES
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts two tracks (N,) and (N',) to the shorter one's length.

    Raises ValueError if a track is not one-dimensional, is empty, or has negative or non-finite values, or
    if the lengths differ by more than `tolerance` frames.
    """
    tracks = [np.asarray(track, dtype=np.float64) for track in (reference, estimate)]
    for name, track in zip(("reference", "estimate"), tracks, strict=True):
        if track.ndim != 1 or not len(track):
            raise ValueError(f"the {name} F0 has shape {track.shape}, expected (N,) with N > 0")
        if not np.isfinite(track).all() or (track < 0).any():
            raise ValueError(f"the {name} F0 has negative or non-finite values; unvoiced is 0")
    length = min(map(len, tracks))
    if abs(len(tracks[0]) - len(tracks[1])) > tolerance:
        raise ValueError(
            f"the F0 tracks have {len(tracks[0])} and {len(tracks[1])} frames, "
            f"more than {tolerance} apart"
        )
    return tracks[0][:length], tracks[1][:length]


def _gross(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """(N,) bool: voiced in both tracks and more than 20 % away from the reference."""
    both = (reference > 0) & (estimate > 0)
    return both & (np.abs(estimate - reference) > GROSS_ERROR * reference)


def voicing_decision_error(reference: np.ndarray, estimate: np.ndarray) -> float:
    """VDE: the share of all frames, in [0, 1], that are voiced in one track and unvoiced in the other.

    Nakatani et al., "A method for fundamental frequency estimation and voicing decision" (2008).
    """
    reference, estimate = align(reference, estimate)
    return float(np.mean((reference > 0) != (estimate > 0)))


def gross_pitch_error(reference: np.ndarray, estimate: np.ndarray) -> float:
    """GPE: of the frames voiced in both tracks, the share in [0, 1] that is more than 20 % off.

    NaN if no frame is voiced in both. Rabiner et al. (1976) as restated by Chu and Alwan (2009).
    """
    reference, estimate = align(reference, estimate)
    both = np.sum((reference > 0) & (estimate > 0))
    return float(_gross(reference, estimate).sum() / both) if both else float("nan")


def f0_frame_error(reference: np.ndarray, estimate: np.ndarray) -> float:
    """FFE: the share of all frames, in [0, 1], with a voicing error or more than 20 % off.

    Chu and Alwan, "Reducing F0 frame error of F0 tracking algorithms under noisy conditions" (ICASSP 2009).
    """
    reference, estimate = align(reference, estimate)
    voicing = (reference > 0) != (estimate > 0)
    return float(np.mean(voicing | _gross(reference, estimate)))


def _both_voiced_logs(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, estimate = align(reference, estimate)
    both = (reference > 0) & (estimate > 0)
    return np.log(reference[both]), np.log(estimate[both])


def log_f0_rmse(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Root mean square of the difference of natural logarithms over the frames voiced in both.

    NaN if there are none. An octave is 0.693, a semitone 0.058.
    """
    first, second = _both_voiced_logs(reference, estimate)
    return float(np.sqrt(np.mean((first - second) ** 2))) if len(first) else float("nan")


def log_f0_correlation(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Pearson's correlation of log F0 over the frames voiced in both.

    NaN with fewer than 2 such frames, or if one track is constant. A constant shift in semitones does not
    change it, so it can be used for conversion, where RMSE and FFE cannot.
    """
    first, second = _both_voiced_logs(reference, estimate)
    # The standard deviation of a flat contour is rounding noise instead of 0; it would correlate by chance.
    if len(first) < 2 or min(np.std(first), np.std(second)) < 1e-9:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def f0_errors(reference: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """All measures of this module: `vde`, `gpe`, `ffe`, `log_f0_rmse` and `log_f0_correlation`.

    Over several utterances, weight vde and ffe by `frames`, and gpe by `frames_both_voiced`.
    """
    reference, estimate = align(reference, estimate)
    return {
        "vde": voicing_decision_error(reference, estimate),
        "gpe": gross_pitch_error(reference, estimate),
        "ffe": f0_frame_error(reference, estimate),
        "log_f0_rmse": log_f0_rmse(reference, estimate),
        "log_f0_correlation": log_f0_correlation(reference, estimate),
        "frames": len(reference),
        "frames_both_voiced": int(np.sum((reference > 0) & (estimate > 0))),
    }
