"""Pitch and rhythm: changed in Hz and in units, before anything is quantised or spoken."""

import logging
import re

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.pitch.representations import F0Representation, normalize_log
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.units import collapse_runs

SLOWEST, FASTEST = 0.25, 4.0
TRAINED_DEVIATIONS = (
    2.5  # of a speaker's F0 around the mean: what training showed, but for a percent
)


def check_rate(rate: float) -> None:
    """Refuses rates outside 0.25 to 4 with a ValueError."""
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError(f"--rate {rate}: expected {SLOWEST} to {FASTEST}")


def change_rate(
    units: np.ndarray, f0_codes: np.ndarray | None, rate: float, span: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Speaks `rate` times as fast: every stream is sampled at its nearest frame.

    Args:
        units: (U,) int64.
        f0_codes: (F,) int64 or None.
        rate: 0.25 to 4; the length becomes round(U / rate).
        span: units an F0 code.

    Raises:
        ValueError: another rate.
    """
    check_rate(rate)
    if rate == 1 or not len(units):
        return units, f0_codes
    picked = units[pick(rate_positions(len(units), rate), len(units))]
    if f0_codes is None:
        return picked, None
    codes = (np.arange(-(-len(picked) // span)) + 0.5) * rate - 0.5
    return picked, f0_codes[pick(codes, len(f0_codes))]


def rate_positions(num_units: int, rate: float) -> np.ndarray:
    """Returns where in the (U,) units each unit of the faster or slower speech lies: (round(U / rate),)."""
    return (np.arange(max(1, round(num_units / rate))) + 0.5) * rate - 0.5


def duration_positions(units: np.ndarray, expanded: np.ndarray) -> np.ndarray:
    """Returns where in `units` each unit of `expanded` lies, which has the same runs in other lengths.

    Args:
        units: (U,) int64.
        expanded: (U',) int64.

    Raises:
        ValueError: the runs are not the same.
    """
    (runs, counts), (others, wanted) = collapse_runs(units), collapse_runs(expanded)
    if not np.array_equal(runs, others):
        raise ValueError("the durations are of other units")
    starts = np.cumsum(counts) - counts
    return np.concatenate(
        [
            start + (np.arange(new) + 0.5) * old / new - 0.5
            for start, old, new in zip(starts, counts, wanted, strict=True)
        ]
    )


def align_units(units: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Aligns two utterances by dynamic time warping over their units, equal ones at no cost.

    Args:
        units: (U,) int64.
        others: (V,) int64.

    Returns:
        (U,) float, where in `others` each unit lies; never falling.
    """
    from librosa.sequence import dtw

    # A small price off the diagonal keeps both going where nothing matches.
    place = np.abs(
        np.arange(len(units))[:, None] / len(units) - np.arange(len(others)) / len(others)
    )
    _, path = dtw(C=(units[:, None] != others) + 0.1 * place)
    path = path[::-1]
    sums = np.bincount(path[:, 0], path[:, 1], len(units))
    return sums / np.bincount(path[:, 0], minlength=len(units))


def pick(positions: np.ndarray, size: int) -> np.ndarray:
    """Returns the nearest of `size` places to each position, int64."""
    return np.clip(np.floor(positions + 0.5), 0, size - 1).astype(np.int64)


def warp_f0(f0: np.ndarray, positions: np.ndarray, unit_hop: int) -> np.ndarray:
    """Stretches F0 with the units.

    Args:
        f0: (N,) Hz at 200 Hz.
        positions: (U',) where in the units each unit of the result lies.
        unit_hop: samples a unit.

    Returns:
        (U' * unit_hop / 80,) Hz: of each frame the nearest frame's.
    """
    frames = unit_hop // F0_HOP
    centres = (np.arange(len(positions) * frames) + 0.5) / frames - 0.5
    places = np.interp(centres, np.arange(len(positions)), positions)
    return f0[pick((places + 0.5) * frames - 0.5, len(f0))]


def parse_pitch(text: str) -> tuple[str, float | str]:
    """Reads `shift=+3st`, `scale=1.2`, `flatten` or `from=OTHER.wav`.

    Returns:
        (`scale`, factor), (`flatten`, 0) or (`from`, path).

    Raises:
        ValueError: something else, or beyond two octaves.
    """
    shift = re.fullmatch(r"(?:shift=)?([+-]?\d+(?:\.\d+)?)(?:st)?", text)
    scale = re.fullmatch(r"scale=(\d+(?:\.\d+)?)", text)
    if text == "flatten":
        return "flatten", 0.0
    if text.startswith("from=") and len(text) > 5:
        return "from", text[5:]
    factor = 2 ** (float(shift[1]) / 12) if shift else float(scale[1]) if scale else 0.0
    if not 0.25 <= factor <= 4:
        raise ValueError(
            f"--pitch {text!r}: expected shift=+3st, scale=1.2, flatten or from=OTHER.wav, within two octaves"
        )
    return "scale", factor


def apply_pitch(f0: np.ndarray, pitch: str | None) -> np.ndarray:
    """Changes (N,) Hz, 0 = unvoiced, as `shift=…`, `scale=…` or `flatten` says; None: not at all."""
    if pitch is None:
        return f0
    kind, factor = parse_pitch(pitch)
    if kind == "from":
        raise ValueError(f"--pitch {pitch}: another utterance's pitch needs audio, not codes")
    if kind == "scale":
        return (f0 * np.float32(factor)).astype(np.float32)
    voiced = f0 > 0
    mean = f0[voiced].mean() if voiced.any() else 0
    return np.where(voiced, mean, 0).astype(np.float32)


def borrow_f0(
    f0: np.ndarray, other: np.ndarray, positions: np.ndarray, unit_hop: int
) -> np.ndarray:
    """Puts another utterance's melody on this one's voiced frames.

    Args:
        f0: (N,) Hz of this utterance, whose voicing stays.
        other: (M,) Hz.
        positions: (U,) where in the other's units each unit of this one lies.
        unit_hop: samples a unit.

    Returns:
        (N,) Hz.

    Raises:
        ValueError: the other has no voiced frame.
    """
    if not (other > 0).any():
        raise ValueError("--pitch from=…: no frame of that recording is voiced")
    # interpolated through its unvoiced frames, which need not be unvoiced here
    level = np.exp(normalize_log(other, {"log_f0_mean": 0.0, "log_f0_std": 1.0}))
    warped = warp_f0(level, positions, unit_hop)
    warped = np.pad(warped, (0, max(len(f0) - len(warped), 0)), mode="edge")[: len(f0)]
    return np.where(f0 > 0, warped, 0).astype(np.float32)


def change_pitch(
    f0_codes: np.ndarray, pitch: str, representation: F0Representation, entry: F0Entry
) -> np.ndarray:
    """Changes the pitch of coded speech: to Hz, there the change, and quantised again.

    Args:
        f0_codes: (F,) int64.
        pitch: `shift=…`, `scale=…` or `flatten`.
        representation: of the codes.
        entry: F0 statistics of the voice that is to speak; a warning is logged if the pitch leaves them.
    """
    hertz = apply_pitch(representation.decode(f0_codes, entry), pitch)
    note = range_note(hertz, entry)
    if note:
        logging.getLogger(__name__).warning("--pitch %s: %s", pitch, note)
    return representation.encode(hertz, entry)[: len(f0_codes)]


def move_f0(f0: np.ndarray, source: F0Entry, target: F0Entry) -> np.ndarray:
    """Moves (N,) Hz from one voice's mean and deviation to another's; unvoiced frames stay 0."""
    names = {"source": source, "target": target}
    return SpeakerStatistics(names, source).convert(f0, "source", "target")


def range_note(f0: np.ndarray, entry: F0Entry) -> str:
    """Says in a sentence that pitch leaves what was trained, or nothing.

    Args:
        f0: (N,) Hz, what is asked for.
        entry: F0 statistics of the voice that is to speak.
    """
    voiced = f0[f0 > 0]
    low = max(entry["f0_mean"] - TRAINED_DEVIATIONS * entry["f0_std"], 1)
    high = entry["f0_mean"] + TRAINED_DEVIATIONS * entry["f0_std"]
    outside = float(((voiced < low) | (voiced > high)).mean()) if len(voiced) else 0.0
    if outside <= 0.1:
        return ""
    return (
        f"{outside:.0%} of the pitch leaves the range that the model was trained on for this voice, "
        f"{low:.0f} to {high:.0f} Hz"
    )
