"""Build examples/asterisk/speech: 77 seconds per voice of Asterisk's core sounds, as 16 kHz FLAC.

    python examples/asterisk/build_embedded.py UNPACKED examples/asterisk/speech

UNPACKED is that of prompts.py. The folder gets whole prompts of 1.5 to 7 seconds, in the order of a hash of
their names, so that the choice is the same everywhere and the voices share most sentences. The samples are
those of the G.722 decoder, rounded to 16 bits; nothing is trimmed, scaled or filtered.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from prompts import VOICES, find_voice, speech_prompts

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.storage.files import atomic_path

SECONDS_PER_VOICE = 77.0  # keeps the folder under 8 MB
SHORTEST, LONGEST = 1.5, 7.0  # seconds
LEAST_ACTIVE = 0.75  # share of 20 ms frames within 35 dB of the loudest


def active_share(wav: np.ndarray) -> float:
    """The share of 20 ms frames whose level is within 35 dB of that of the loudest frame."""
    frames = wav[: len(wav) // 320 * 320].reshape(-1, 320)
    level = np.sqrt(np.square(frames).mean(axis=1))
    return float(np.mean(level > level.max() * 10 ** (-35 / 20)))


def _order(path: Path) -> str:
    return hashlib.sha256(path.stem.encode()).hexdigest()


def chosen(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (stem, (T,) samples) of a voice until its seconds are full, no recording twice."""
    seconds, seen = 0.0, set()
    for path in sorted(speech_prompts(folder)[0], key=_order):
        wav, rate = load_any_audio(path)
        if rate != SAMPLE_RATE:
            raise ValueError(f"{path}: found {rate} Hz, expected {SAMPLE_RATE}")
        digest = hashlib.sha256(wav.tobytes()).digest()
        length = len(wav) / SAMPLE_RATE
        if not SHORTEST <= length <= LONGEST or active_share(wav) < LEAST_ACTIVE:
            continue
        if path.stem in seen or digest in seen or seconds + length > SECONDS_PER_VOICE:
            continue
        seen |= {path.stem, digest}
        seconds += length
        yield path.stem, wav


def build(unpacked: Path, out: Path) -> None:
    """Writes `<voice>/<prompt>.flac` for the five voices."""
    for voice in VOICES:
        seconds = files = 0
        for stem, wav in chosen(find_voice(unpacked, voice)):
            with atomic_path(out / voice / f"{stem}.flac") as temporary:
                soundfile.write(temporary, wav, SAMPLE_RATE, "PCM_16", compression_level=1.0)
            seconds, files = seconds + len(wav) / SAMPLE_RATE, files + 1
        print(f"{voice}: {files} files, {seconds:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    build(Path(sys.argv[1]), Path(sys.argv[2]))
