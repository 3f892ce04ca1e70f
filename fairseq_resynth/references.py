"""Voices to speak with: a speaker of the model, or whoever is heard in a few seconds of audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.data.audio import SAMPLE_RATE, load_any_audio, resample
from fairseq_resynth.data.f0 import SILENCE_PEAK, extract_f0
from fairseq_resynth.data.speaker_vectors import mean_vector
from fairseq_resynth.data.speakers import F0Entry, SpeakerStatistics
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.interop.speaker_encoder import describe_encoder, load_encoder
from fairseq_resynth.reference_checks import why_no_voice
from fairseq_resynth.voices import known_voices

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
    streams: Streams,
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
            f"target {', '.join(missing)}: neither a speaker of the model ({known_voices(streams)}) nor an "
            "audio file."
        )
    if not streams.speaker_dim:
        raise ValueError(
            f"target {targets[0]}: the model has a table of speakers ({known_voices(streams)}) and takes no "
            "reference. Train with --speaker-input vector, or `resynth export … --speaker-vectors DATA`."
        )
    return measure_voice(
        [(str(path), resample(*load_any_audio(path))) for path in targets], streams
    )


def measure_voice(recordings: Sequence[tuple[str, np.ndarray]], streams: Streams) -> Voice:
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
