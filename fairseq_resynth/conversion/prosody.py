"""Changes of pitch and rhythm, made in Hz and in units, before anything is quantized or generated."""

import logging
import re

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.pitch.representations import F0Representation, normalize_log
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.units import collapse_runs
from fairseq_resynth.measures.alignment import warping_path

SLOWEST, FASTEST = 0.25, 4.0
# Standard deviations of a speaker's F0 around its mean that contain 99 % of the training data.
TRAINED_DEVIATIONS = 2.5


def check_rate(rate: float) -> None:
    """Raises ValueError if the rate of speaking is outside 0.25 to 4."""
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError(f"--rate {rate}: expected {SLOWEST} to {FASTEST}")


def change_rate(
    units: np.ndarray, f0_codes: np.ndarray | None, rate: float, unit_hop: int, f0_code_hop: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Speaks 0.25 to 4 times as fast, else ValueError, by sampling every stream at its nearest frame. (U,)
    units become round(U / rate); the hops are samples per unit and per F0 code."""
    check_rate(rate)
    if rate == 1 or not len(units):
        return units, f0_codes
    changed = units[nearest_indices(rate_positions(len(units), rate), len(units))]
    if f0_codes is None:
        return changed, None
    num_codes = -(-len(changed) * unit_hop // f0_code_hop)
    positions = (np.arange(num_codes) + 0.5) * rate - 0.5
    return changed, f0_codes[nearest_indices(positions, len(f0_codes))]


def rate_positions(num_units: int, rate: float) -> np.ndarray:
    """The (round(U / rate),) positions in U units that speech `rate` times as fast passes through."""
    return (np.arange(max(1, round(num_units / rate))) + 0.5) * rate - 0.5


def duration_positions(units: np.ndarray, expanded: np.ndarray) -> np.ndarray:
    """The (U',) positions in (U,) units of `expanded`, the same runs (else ValueError) with other lengths."""
    (runs, counts), (others, new_counts) = collapse_runs(units), collapse_runs(expanded)
    if not np.array_equal(runs, others):
        raise ValueError("the durations are of other units")
    starts = np.cumsum(counts) - counts
    return np.concatenate(
        [
            start + (np.arange(new) + 0.5) * old / new - 0.5
            for start, old, new in zip(starts, counts, new_counts, strict=True)
        ]
    )


def align_units(units: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The (U,) position in (V,) other units of each unit, never decreasing, by dynamic time warping."""
    size, other = len(units), len(others)

    def cost(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        # Where nothing matches, a small cost off the diagonal makes both utterances advance.
        return (units[row] != others[column]) + 0.1 * np.abs(row / size - column / other)

    path = warping_path(cost, size, other)
    sums = np.bincount(path[:, 0], path[:, 1], len(units))
    return sums / np.bincount(path[:, 0], minlength=len(units))


def nearest_indices(positions: np.ndarray, size: int) -> np.ndarray:
    """The index nearest to each position, int64 within 0 … size - 1."""
    return np.clip(np.floor(positions + 0.5), 0, size - 1).astype(np.int64)


def warp_f0(f0: np.ndarray, positions: np.ndarray, unit_hop: int) -> np.ndarray:
    """Stretches (N,) F0 at 200 Hz to the ceil(U' * unit_hop / 80) nearest frames of changed units.
    `positions` holds the (U',) position in the units of each unit of the result."""
    num_frames = -(-len(positions) * unit_hop // F0_HOP)
    # In units and then back in frames, both measured at their centers; unit_hop / 80 need not be whole.
    centers = (np.arange(num_frames) + 0.5) * F0_HOP / unit_hop - 0.5
    sources = np.interp(centers, np.arange(len(positions)), positions)
    return f0[nearest_indices((sources + 0.5) * unit_hop / F0_HOP - 0.5, len(f0))]


def parse_pitch(text: str) -> tuple[str, float | str]:
    """Reads shift=+3st, scale=1.2, flatten or from=FILE as (scale, factor), (flatten, 0) or (from, path).
    Raises ValueError for anything else and for changes of more than two octaves."""
    shift = re.fullmatch(r"(?:shift=)?([+-]?\d+(?:\.\d+)?)(?:st)?", text)
    scale = re.fullmatch(r"scale=(\d+(?:\.\d+)?)", text)
    if text == "flatten":
        return "flatten", 0.0
    if text.startswith("from=") and len(text) > 5:
        return "from", text[5:]
    factor = 2 ** (min(float(shift[1]), 99) / 12) if shift else float(scale[1]) if scale else 0.0
    if not 0.25 <= factor <= 4:
        raise ValueError(
            f"--pitch {text!r}: expected shift=+3st, scale=1.2, flatten or from=OTHER.wav, within two octaves"
        )
    return "scale", factor


def apply_pitch(f0: np.ndarray, pitch: str | None) -> np.ndarray:
    """Changes (N,) Hz, 0 = unvoiced, as `shift=…`, `scale=…` or `flatten` says; None: no change."""
    if pitch is None:
        return f0
    kind, factor = parse_pitch(pitch)
    if kind == "from":
        raise ValueError(f"--pitch {pitch}: the pitch of another utterance needs audio, not codes")
    if kind == "scale":
        return (f0 * np.float32(factor)).astype(np.float32)
    voiced = f0 > 0
    mean = f0[voiced].mean() if voiced.any() else 0
    return np.where(voiced, mean, 0).astype(np.float32)


def transfer_f0(
    f0: np.ndarray, other: np.ndarray, positions: np.ndarray, unit_hop: int
) -> np.ndarray:
    """Gives the voiced frames of an utterance, (N,) Hz, the melody of another, (M,) Hz. `positions`
    holds the (U,) position in the other's units of each unit. Raises ValueError if the other has no
    voiced frame."""
    if not (other > 0).any():
        raise ValueError("--pitch from=…: no frame of that recording is voiced")
    # Interpolated through its unvoiced frames, because they may be voiced in this utterance.
    filled = np.exp(normalize_log(other, {"log_f0_mean": 0.0, "log_f0_std": 1.0}))
    warped = warp_f0(filled, positions, unit_hop)
    warped = np.pad(warped, (0, max(len(f0) - len(warped), 0)), mode="edge")[: len(f0)]
    return np.where(f0 > 0, warped, 0).astype(np.float32)


def change_pitch(
    f0_codes: np.ndarray, pitch: str, representation: F0Representation, entry: F0Entry
) -> np.ndarray:
    """Changes (F,) pitch codes in Hz as `shift=…`, `scale=…` or `flatten` says, and quantizes them
    again. `entry` holds the F0 statistics of the target voice; a warning is logged if the pitch leaves
    their range."""
    hertz = apply_pitch(representation.decode(f0_codes, entry), pitch)
    if warning := range_warning(hertz, entry):
        logging.getLogger(__name__).warning("--pitch %s: %s", pitch, warning)
    return representation.encode(hertz, entry)[: len(f0_codes)]


def convert_f0(f0: np.ndarray, source: F0Entry, target: F0Entry) -> np.ndarray:
    """Moves (N,) Hz from one voice's mean and standard deviation to another's; unvoiced frames stay 0."""
    names = {"source": source, "target": target}
    return SpeakerStatistics(names, source).convert(f0, "source", "target")


def range_warning(f0: np.ndarray, entry: F0Entry) -> str:
    """A sentence if over a tenth of (N,) Hz is outside the range of the voice's training data, else ""."""
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
