"""Whether a recording is a voice all through: what is no speech gives itself away in a second.

Each second with sound in it is looked at by itself, so that half a minute of speech does not hide ten seconds
of music. Thresholds lie between 25 recordings of five speakers and chords, notes, noise and whisper, alone or
after speech (`tests/voices/test_reference_checks.py` has both). Rhythmic chords under speech are not found.
"""

import numpy as np

from fairseq_resynth.data.audio import SAMPLE_RATE
from fairseq_resynth.data.f0 import F0_HOP

FRAMES_A_SECOND = SAMPLE_RATE // F0_HOP
FRAME = 400  # samples whose level is a frame's
LOUD_DB = 25.0  # below the loudest frames: what counts as sound
LEAST_LOUD = 0.3  # of a second's frames, or it is passed over as a pause
PERIODIC = 0.6  # correlation of neighbouring periods: 0.9 in a voice, 0.1 in noise, 0.4 in a chord
LEAST_PERIODIC = (
    0.3  # of a second's loud frames: 0.42 and more in speech, 0.27 and less where half is none
)
STILL_SEMITONES = 0.1  # in 50 ms: notes stand still, voices move
MOST_STILL = 0.5  # of a second's voiced frames: up to 0.17 in speech, 0.7 and more in a melody
ALLOWED = 0.25  # of the seconds


def _periodicity(wav: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """(N,) correlation of the two periods around each voiced frame, 0 where none is."""
    longest = int(SAMPLE_RATE / max(f0[f0 > 0].min(initial=SAMPLE_RATE), 20.0)) + 2
    padded = np.pad(wav.astype(np.float64), longest)
    found = np.zeros(len(f0))
    for frame in np.flatnonzero(f0 > 0):
        centre, lag = longest + frame * F0_HOP, round(SAMPLE_RATE / f0[frame])
        for period in (lag - 1, lag, lag + 1):
            left, right = padded[centre - period : centre], padded[centre : centre + period]
            size = np.sqrt((left @ left) * (right @ right)) if len(left) == len(right) else 0.0
            found[frame] = max(found[frame], left @ right / size if size > 0 else 0.0)
    return found


def _loud(wav: np.ndarray, frames: int) -> np.ndarray:
    """(N,) whether a frame has sound in it."""
    padded = np.pad(wav.astype(np.float64), (FRAME // 2, FRAME + frames * F0_HOP))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::F0_HOP][:frames]
    level = 10 * np.log10(np.square(pieces).mean(1) + 1e-10)
    return level > np.percentile(level, 95) - LOUD_DB


def _still(f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether the pitch is where it was 50 ms before, and (N,) whether both are voiced."""
    step = FRAMES_A_SECOND // 20
    semitones = 12 * np.log2(np.where(f0 > 0, f0, 1.0))
    both, near = np.zeros(len(f0), bool), np.zeros(len(f0), bool)
    both[step:] = (f0[step:] > 0) & (f0[:-step] > 0)
    near[step:] = np.abs(semitones[step:] - semitones[:-step]) < STILL_SEMITONES
    return near, both


def odd_seconds(wav: np.ndarray, f0: np.ndarray) -> dict[str, list[float]]:
    """Finds the seconds that are no speech.

    Args:
        wav: (T,) float at 16 kHz, a second or longer.
        f0: (N,) Hz at 200 Hz.

    Returns:
        Where they start, in seconds: `all` with sound, `voiceless` (noise, chords, whisper), `melody`.
    """
    periodic, loud = _periodicity(wav, f0) > PERIODIC, _loud(wav, len(f0))
    near, both = _still(f0)
    found: dict[str, list[float]] = {"all": [], "voiceless": [], "melody": []}
    for start in range(0, max(1, len(f0) - FRAMES_A_SECOND + 1), FRAMES_A_SECOND // 2):
        second = slice(start, start + FRAMES_A_SECOND)
        if loud[second].mean() < LEAST_LOUD:
            continue
        found["all"].append(start / FRAMES_A_SECOND)
        if (periodic & loud)[second].sum() < LEAST_PERIODIC * loud[second].sum():
            found["voiceless"].append(start / FRAMES_A_SECOND)
        elif (near & both)[second].sum() > MOST_STILL * max(both[second].sum(), 1):
            found["melody"].append(start / FRAMES_A_SECOND)
    return found


def why_no_voice(wav: np.ndarray, f0: np.ndarray) -> str:
    """Says in half a sentence what else than a voice is heard in more than a quarter of it, or nothing.

    Args:
        wav: (T,) float at 16 kHz.
        f0: (N,) Hz at 200 Hz.
    """
    found = odd_seconds(wav, f0)
    reasons = {
        "voiceless": "no voice is heard in {}: is it noise, whisper or music there?",
        "melody": "the pitch stands still as in a melody in {}: is it music there?",
    }
    for kind, reason in reasons.items():
        if len(found[kind]) > ALLOWED * len(found["all"]):
            first, last = found[kind][0], found[kind][-1] + 1
            return reason.format(
                f"{len(found[kind]) / len(found['all']):.0%} of it, from {first:g} to {last:g} s"
            )
    return ""
