"""Speech of every voice is accepted; other sounds are rejected, even if they are only half of a recording."""

import librosa
import numpy as np
import pytest
from scipy.signal import lfilter
from tiny_voices import SPEECH, tone

from fairseq_resynth.conversion.references import validate_reference
from fairseq_resynth.data.audio.decoding import load_any_audio

CHORDS = ((131, 165, 196), (147, 175, 220), (98, 124, 147))
NOTES = (220, 247, 262, 294, 330, 294)


def speech(voice):
    """Three to four seconds of one person."""
    wavs = [load_any_audio(path)[0] for path in sorted((SPEECH / voice).glob("*.flac"))]
    return np.concatenate([wav for wav in wavs if len(wav) > 24000][:2])[:64000]


def in_time(notes, seconds, pause, decay):
    gap = np.zeros(int(16000 * pause), np.float32)
    return np.concatenate([np.concatenate([tone_of(note, seconds, decay), gap]) for note in notes])


def tone_of(note, seconds, decay):
    return sum(tone(frequency, seconds, decay) for frequency in np.atleast_1d(note))


def whispered(wav, rng):
    """The same formants, excited by noise: linear prediction of 25 ms pieces."""
    out, window = np.zeros(len(wav)), np.hanning(400)
    for start in range(0, len(wav) - 400, 200):
        piece = wav[start : start + 400] * window
        if np.abs(piece).max() > 1e-4:
            filter_ = librosa.lpc(piece + 1e-6 * rng.standard_normal(400), order=16)
            excitation = rng.standard_normal(400) * lfilter(filter_, 1, piece).std()
            out[start : start + 400] += lfilter([1], filter_, excitation) * window
    return out.astype(np.float32)


def sounds():
    rng = np.random.default_rng(0)
    return {
        "noise": 0.1 * rng.standard_normal(32000).astype(np.float32),
        "chords": in_time(CHORDS, 0.5, 0.2, 5),
        "a pad": np.concatenate([tone_of(chord, 0.8, 0) for chord in CHORDS]),
        "a melody": in_time(NOTES, 0.35, 0.15, 3),
        "whisper": whispered(speech("english"), rng),
    }


@pytest.mark.parametrize("voice", ["english", "french", "italian", "russian", "spanish"])
def test_speech_is_a_reference(voice):
    wav = speech(voice)
    assert (validate_reference(wav, voice) > 0).mean() > 0.3
    noise = np.random.default_rng(0).standard_normal(len(wav)) * wav.std() * 0.1
    validate_reference((wav + noise).astype(np.float32), voice)  # 20 dB under it


@pytest.mark.parametrize("name", sounds())
def test_what_is_no_voice_is_refused_alone_and_after_speech(name):
    sound, half = sounds()[name], speech("english")[:30000]
    reason = "is it noise|is it music|no voiced speech"
    with pytest.raises(ValueError, match=reason):
        validate_reference(sound, name)
    after = np.concatenate([half, sound[-30000:]])
    with pytest.raises(
        ValueError,
        match=r"% of it, from [12](\.5)? to [34](\.5)? s(, has no voiced speech)?: is it",
    ):
        validate_reference(after, name)
