"""Target voices: a speaker of the model, or an unseen speaker from a short recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import F0_HOP, F0_RATE, SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.data.pitch.extraction import SILENCE_PEAK, extract_f0
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.speaker_vectors import mean_vector
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders.speaker import describe_encoder, load_encoder
from fairseq_resynth.inference.voices import speaker_names

MIN_SECONDS = 1.0
MIN_VOICED = 0.1  # of the frames; 0.6 and more in read speech, 0.05 in noise
# Share of 25 ms frames quieter than half the mean level of the second around them: speech has pauses, music
# has not (Scheirer and Slaney, 1997). 0.12 and more in read speech, 0.00 in tones, chords and melodies.
MIN_LOW_ENERGY = 0.05

# Tests of each second, because a reference may contain music or noise in a part of it only.
LEVEL_FRAME = 400  # samples over which the level of a frame is measured
LOUD_DB = 25.0  # frames within this range below the loudest ones contain sound
MIN_LOUD = 0.3  # of the frames of a second; seconds with less are pauses and are not tested
PERIODIC = 0.6  # correlation of adjacent periods: 0.9 in a voice, 0.1 in noise, 0.4 in a chord
# Of the loud frames of a second: 0.42 and more in speech, 0.27 and less where half of it is something else.
MIN_PERIODIC = 0.3
STEADY_SEMITONES = 0.1  # within 50 ms: the pitch of a note is steady, that of a voice moves
MAX_STEADY = 0.5  # of the voiced frames of a second: up to 0.17 in speech, 0.7 and more in a melody
MAX_NONSPEECH = 0.25  # of the seconds with sound
NONSPEECH_REASONS = {
    "voiceless": "{}, has no voiced speech: is it noise, whisper or music?",
    "melody": "the pitch is as steady as in a melody in {}: is it music?",
}


@dataclass(frozen=True)
class Voice:
    """A target voice."""

    name: str  # used in messages
    # Name in the model or (D,) vector; None for a model of one voice.
    speaker: str | np.ndarray | None
    entry: F0Entry | None  # F0 statistics in Hz
    measured: bool = False  # on references, instead of known by the speaker's name


def find_voice(
    target: str | Path | Sequence[str | Path],
    streams: StreamSpec,
    statistics: SpeakerStatistics | None,
) -> Voice:
    """A voice by its name in the model, or measured on one or more recordings of one person. Raises
    ValueError if `target` is neither a speaker nor files, a file contains no voice, or the model has a table
    of speakers and gets a recording."""
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
    """Measures the speaker vector and the F0 statistics of one person for a model on speaker vectors.
    `recordings` are (name, (T,) float at 16 kHz). Raises ValueError if one contains no voice, or the speaker
    encoder is another than the model's."""
    encoder = streams.speaker_vectors["encoder"]
    found, expected = describe_encoder(encoder), streams.speaker_vectors.get("encoder_hash")
    if expected and found["encoder_hash"] != expected:
        raise ValueError(
            f"the speaker encoder {encoder} here is {found['encoder_hash']}, the model was trained with "
            f"{expected}."
        )
    tracks, vectors = [], []
    for name, wav in recordings:
        tracks.append(("", validate_reference(wav, name)))
        try:
            vectors.append(load_encoder(encoder).embed(wav))
        except ValueError as error:
            raise ValueError(f"reference {name}: {error}") from error
    names = ",".join(Path(name).stem for name, _ in recordings)
    entry = SpeakerStatistics.from_frames(tracks).overall
    return Voice(names, mean_vector(vectors), entry, measured=True)


def validate_reference(wav: np.ndarray, name: str) -> np.ndarray:
    """The (ceil(T / 80),) F0 in Hz of a (T,) recording at 16 kHz that contains a voice and nothing else.
    Raises ValueError if it is shorter than a second, silent or without pitch, or if more than a quarter of
    it is music, noise or whisper."""
    seconds = len(wav) / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        raise ValueError(
            f"reference {name}: {seconds:.2f} s, expected a second or more of speech; 5 s are better"
        )
    if np.abs(wav).max() < SILENCE_PEAK:
        raise ValueError(f"reference {name}: it is silent, expected a second or more of speech")
    f0 = extract_f0(wav)
    voiced = float((f0 > 0).mean())
    if voiced < MIN_VOICED:
        raise ValueError(
            f"reference {name}: {voiced:.0%} of it is voiced, expected {MIN_VOICED:.0%} or more: "
            "is it noise?"
        )
    quiet = _low_energy_ratio(wav)
    if quiet < MIN_LOW_ENERGY:
        raise ValueError(
            f"reference {name}: {quiet:.0%} of it is quieter than its surroundings, expected the pauses of "
            f"speech, {MIN_LOW_ENERGY:.0%} or more: is it music or a tone?"
        )
    found = nonspeech_seconds(wav, f0)
    for kind, reason in NONSPEECH_REASONS.items():
        if len(found[kind]) > MAX_NONSPEECH * len(found["all"]):
            first, last = found[kind][0], found[kind][-1] + 1
            share = len(found[kind]) / len(found["all"])
            where = f"{share:.0%} of it, from {first:g} to {last:g} s"
            raise ValueError(f"reference {name}: {reason.format(where)}")
    return f0


def nonspeech_seconds(wav: np.ndarray, f0: np.ndarray) -> dict[str, list[float]]:
    """Tests each second of (T,) samples and their (N,) F0, with an overlap of half a second. Returns start
    times in seconds: of `all` seconds with sound, of the `voiceless` ones among them (noise, chords,
    whisper) and of those with a `melody`."""
    periodic, loud = _periodicity(wav, f0) > PERIODIC, _is_loud(wav, len(f0))
    steady, both_voiced = _is_steady(f0)
    found: dict[str, list[float]] = {"all": [], "voiceless": [], "melody": []}
    for start in range(0, max(1, len(f0) - F0_RATE + 1), F0_RATE // 2):
        second = slice(start, start + F0_RATE)
        if loud[second].mean() < MIN_LOUD:
            continue
        found["all"].append(start / F0_RATE)
        if (periodic & loud)[second].sum() < MIN_PERIODIC * loud[second].sum():
            found["voiceless"].append(start / F0_RATE)
        elif steady[second].sum() > MAX_STEADY * max(both_voiced[second].sum(), 1):
            found["melody"].append(start / F0_RATE)
    return found


def _low_energy_ratio(wav: np.ndarray) -> float:
    """Share of 25 ms frames quieter than half the mean level of the second around them."""
    frames = np.lib.stride_tricks.sliding_window_view(wav, 400)[::160]
    level = np.sqrt(np.square(frames.astype(np.float64)).mean(1))
    windows = [level[start : start + 100] for start in range(0, max(len(level) - 99, 1), 50)]
    return float(np.mean([(window < 0.5 * window.mean()).mean() for window in windows]))


def _periodicity(wav: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """(N,) correlation of the periods before and after the center of each voiced frame, else 0."""
    longest = int(SAMPLE_RATE / max(f0[f0 > 0].min(initial=SAMPLE_RATE), 20.0)) + 2
    padded = np.pad(wav.astype(np.float64), longest)
    correlation = np.zeros(len(f0))
    for frame in np.flatnonzero(f0 > 0):
        center, lag = longest + frame * F0_HOP, round(SAMPLE_RATE / f0[frame])
        # One sample more or less: rounding the period to samples must not look like noise.
        for period in (lag - 1, lag, lag + 1):
            left, right = padded[center - period : center], padded[center : center + period]
            norm = np.sqrt((left @ left) * (right @ right)) if len(left) == len(right) else 0.0
            correlation[frame] = max(correlation[frame], left @ right / norm if norm > 0 else 0.0)
    return correlation


def _is_loud(wav: np.ndarray, frames: int) -> np.ndarray:
    """(N,) whether a frame contains sound."""
    padded = np.pad(wav.astype(np.float64), (LEVEL_FRAME // 2, LEVEL_FRAME + frames * F0_HOP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, LEVEL_FRAME)[::F0_HOP][:frames]
    level = 10 * np.log10(np.square(windows).mean(1) + 1e-10)
    return level > np.percentile(level, 95) - LOUD_DB


def _is_steady(f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether the pitch is what it was 50 ms before, and (N,) whether both frames are voiced."""
    step = F0_RATE // 20
    semitones = 12 * np.log2(np.where(f0 > 0, f0, 1.0))
    both, near = np.zeros(len(f0), bool), np.zeros(len(f0), bool)
    both[step:] = (f0[step:] > 0) & (f0[:-step] > 0)
    near[step:] = np.abs(semitones[step:] - semitones[:-step]) < STEADY_SEMITONES
    return near & both, both
