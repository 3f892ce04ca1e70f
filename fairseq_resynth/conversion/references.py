"""Voices to speak with: a speaker of the model, or whoever is heard in a few seconds of audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample
from fairseq_resynth.data.pitch.extraction import SILENCE_PEAK, extract_f0
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.speaker_vectors import mean_vector
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders.speaker import describe_encoder, load_encoder
from fairseq_resynth.inference.voices import speaker_names

SHORTEST_SECONDS = 1.0
LEAST_VOICED = 0.1  # of the frames; 0.6 and more in read speech, 0.05 in noise
# Share of 25 ms frames quieter than half the second around them: speech pauses, music does not (Scheirer and
# Slaney, 1997). 0.12 and more in read speech, 0.00 in tones, chords and melodies.
LEAST_QUIET = 0.05


@dataclass(frozen=True)
class Voice:
    """A voice to speak with.

    Attributes:
        name: how it is called.
        speaker: name in the model or (D,) vector; None for a model of one voice.
        entry: F0 statistics in Hz.
        measured: whether they were measured on references, rather than known by name.
    """

    name: str
    speaker: str | np.ndarray | None
    entry: F0Entry | None
    measured: bool = False


def _quiet_share(wav: np.ndarray) -> float:
    frames = np.lib.stride_tricks.sliding_window_view(wav, 400)[::160]
    level = np.sqrt(np.square(frames.astype(np.float64)).mean(1))
    windows = [level[start : start + 100] for start in range(0, max(len(level) - 99, 1), 50)]
    return float(np.mean([(window < 0.5 * window.mean()).mean() for window in windows]))


def check_reference(wav: np.ndarray, name: str) -> np.ndarray:
    """Refuses what is no voice.

    Args:
        wav: (T,) float at 16 kHz.
        name: for the message.

    Returns:
        Its F0, (ceil(T / 80),) Hz.

    Raises:
        ValueError: shorter than a second, silent, without pitch, or music, noise or whisper, if only in a
            part.
    """
    seconds = len(wav) / SAMPLE_RATE
    if seconds < SHORTEST_SECONDS:
        raise ValueError(
            f"reference {name}: {seconds:.2f} s, expected a second or more of speech; 5 s are better"
        )
    if np.abs(wav).max() < SILENCE_PEAK:
        raise ValueError(f"reference {name}: it is silent, expected a second or more of speech")
    f0 = extract_f0(wav)
    voiced = float((f0 > 0).mean())
    if voiced < LEAST_VOICED:
        raise ValueError(
            f"reference {name}: {voiced:.0%} of it is voiced, expected {LEAST_VOICED:.0%} or more: "
            "is it noise?"
        )
    quiet = _quiet_share(wav)
    if quiet < LEAST_QUIET:
        raise ValueError(
            f"reference {name}: {quiet:.0%} of it is quieter than its surroundings, expected the pauses of "
            f"speech, {LEAST_QUIET:.0%} or more: is it music or a tone?"
        )
    reason = why_no_voice(wav, f0)
    if reason:
        raise ValueError(f"reference {name}: {reason}")
    return f0


def find_voice(
    target: str | Path | Sequence[str | Path],
    streams: StreamSpec,
    statistics: SpeakerStatistics | None,
) -> Voice:
    """Finds a voice by its name in the model, or measures it on recordings.

    Args:
        target: a name; or one or more audio files of one person.
        streams: of the model.
        statistics: F0 of its speakers.

    Raises:
        FileNotFoundError, ValueError: neither a speaker nor a file, or files that are no voice, or a model
            that only knows its own.
    """
    targets = [target] if isinstance(target, str | Path) else list(target)
    if len(targets) == 1 and str(targets[0]) in streams.speakers:
        name = str(targets[0])
        known = statistics is not None and name in statistics.speakers
        return Voice(name, name, statistics.speakers[name] if known else None)
    missing = [str(path) for path in targets if not Path(path).is_file()]
    if missing:
        raise ValueError(
            f"target {', '.join(missing)}: neither a speaker of the model ({speaker_names(streams)}) nor an "
            "audio file."
        )
    if not streams.speaker_dim:
        raise ValueError(
            f"target {targets[0]}: the model has a table of speakers ({speaker_names(streams)}) and takes no "
            "reference. Train with --speaker-input vector, or `resynth export … --speaker-vectors DATA`."
        )
    return measure_voice(
        [(str(path), resample(*load_any_audio(path))) for path in targets], streams
    )


def measure_voice(recordings: Sequence[tuple[str, np.ndarray]], streams: StreamSpec) -> Voice:
    """Measures the vector and the F0 statistics of one person.

    Args:
        recordings: (name, (T,) float at 16 kHz) of each.
        streams: of a model on speaker vectors.

    Raises:
        ValueError: recordings that are no voice, or another speaker encoder than the model's.
    """
    encoder = streams.speaker_vectors["encoder"]
    found, expected = describe_encoder(encoder), streams.speaker_vectors.get("encoder_hash")
    if expected and found["encoder_hash"] != expected:
        raise ValueError(
            f"the speaker encoder {encoder} here is {found['encoder_hash']}, the model was trained with "
            f"{expected}."
        )
    tracks, vectors = [], []
    for name, wav in recordings:
        tracks.append(("", check_reference(wav, name)))
        try:
            vectors.append(load_encoder(encoder).embed(wav))
        except ValueError as error:
            raise ValueError(f"reference {name}: {error}") from error
    names = ",".join(Path(name).stem for name, _ in recordings)
    entry = SpeakerStatistics.from_frames(tracks).overall
    return Voice(names, mean_vector(vectors), entry, measured=True)


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
