"""Errors between two F0 tracks: VDE and FFE of the paper's Tables 1 and 2, and related measures.

A track is (N,) in Hz, 0 where unvoiced. Frame n of one is compared with frame n of the other, without time
warping. The longer track is cut to the shorter one's length if they differ by up to `TOLERANCE_FRAMES`.
"""

import numpy as np

# 0.2 s at 200 Hz: what padding to whole F0 codes (80 ms) and an encoder's edges can add
TOLERANCE_FRAMES = 40
GROSS_ERROR = 0.2  # the paper, Section 4.1: more than 20 % off


def align(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts two tracks (N,) and (N',) to the shorter one's length. Raises ValueError if a track is not
    one-dimensional, is empty, or has negative or non-finite values, or if the lengths differ by more than
    `TOLERANCE_FRAMES`."""
    tracks = [np.asarray(track, dtype=np.float64) for track in (reference, estimate)]
    for name, track in zip(("reference", "estimate"), tracks, strict=True):
        if track.ndim != 1 or not len(track):
            raise ValueError(f"the {name} F0 has shape {track.shape}, expected (N,) with N > 0")
        if not np.isfinite(track).all() or (track < 0).any():
            raise ValueError(f"the {name} F0 has negative or non-finite values; unvoiced is 0")
    lengths = [len(track) for track in tracks]
    if max(lengths) - min(lengths) > TOLERANCE_FRAMES:
        raise ValueError(
            f"the F0 tracks have {lengths[0]} and {lengths[1]} frames, "
            f"more than {TOLERANCE_FRAMES} apart"
        )
    return tracks[0][: min(lengths)], tracks[1][: min(lengths)]


def f0_errors(reference: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """The errors between two tracks that `align` accepts.

    Over several utterances, weight vde and ffe by `frames`, gpe and log_f0_rmse by `frames_both_voiced`.

    Returns:
        vde: share of all frames, in [0, 1], that are voiced in one track only (Nakatani et al., "A method for
            fundamental frequency estimation and voicing decision", 2008).
        gpe: of the frames voiced in both, the share that is more than 20 % off (Rabiner et al., 1976, as
            restated by Chu and Alwan, 2009); NaN if there are none.
        ffe: share of all frames with a voicing error or more than 20 % off (Chu and Alwan, "Reducing F0 frame
            error of F0 tracking algorithms under noisy conditions", ICASSP 2009).
        log_f0_rmse: root mean square of the difference of natural logarithms over the frames voiced in both;
            NaN if there are none. An octave is 0.693, a semitone 0.058.
        log_f0_correlation: Pearson's correlation of log F0 over the frames voiced in both; NaN with fewer
            than 2 of them, or if one track is constant. A constant shift in semitones does not change it, so
            it can be used for conversion, where RMSE and FFE cannot.
        frames, frames_both_voiced: numbers of frames.
    """
    reference, estimate = align(reference, estimate)
    both = (reference > 0) & (estimate > 0)
    voicing = (reference > 0) != (estimate > 0)
    gross = both & (np.abs(estimate - reference) > GROSS_ERROR * reference)
    first, second = np.log(reference[both]), np.log(estimate[both])
    errors = {
        "vde": float(np.mean(voicing)),
        "gpe": float("nan"),
        "ffe": float(np.mean(voicing | gross)),
        "log_f0_rmse": float("nan"),
        "log_f0_correlation": float("nan"),
        "frames": len(reference),
        "frames_both_voiced": len(first),
    }
    if len(first):
        errors["gpe"] = float(gross.sum() / len(first))
        errors["log_f0_rmse"] = float(np.sqrt(np.mean((first - second) ** 2)))
    # The standard deviation of a flat contour is rounding noise instead of 0; it would correlate by chance.
    if len(first) > 1 and min(np.std(first), np.std(second)) >= 1e-9:
        errors["log_f0_correlation"] = float(np.corrcoef(first, second)[0, 1])
    return errors
