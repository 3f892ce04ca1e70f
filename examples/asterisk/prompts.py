"""Copies the speech of Asterisk's core sounds, one folder a voice, and lists what it leaves out and why.

    python examples/asterisk/prompts.py UNPACKED OUT

UNPACKED holds the sounds of the five packages as `dpkg -x` leaves them, or as the archives of Asterisk's own
site do when each is unpacked into a folder of its own (see fetch.sh). OUT gets `<voice>/**.g722` and
`dropped.tsv`. Running it again copies nothing twice.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from fairseq_resynth.data.audio.files import load_any_audio
from fairseq_resynth.data.storage.files import write_text

# voice -> its folder in the Debian packages
VOICES = {
    "english": "en_US_f_Allison",
    "spanish": "es_MX_f_Allison",
    "french": "fr_CA_f_June",
    "italian": "it_IT_m_Carlo",
    "russian": "ru_RU_f_IvrvoiceRU",
}
# Sounds that are no speech, whatever the voice; measured too, but a beep passes for a vowel.
_NOT_SPEECH = {
    "beep": "a beep",
    "beeperr": "a beep",
    "ascending-2tone": "tones",
    "descending-2tone": "tones",
    "confbridge-join": "tones",
    "confbridge-leave": "tones",
    "tt-monkeys": "monkeys",
}
_SILENCE_PEAK = 0.005  # prompts peak above 0.1, the silences below 0.0005


def find_voice(unpacked: Path, voice: str) -> Path:
    """Returns the folder that holds the voice's prompts.

    Raises:
        FileNotFoundError: neither the package's folder nor one named after the voice is there.
    """
    for folder in sorted(unpacked.rglob(VOICES[voice])) + [unpacked / voice]:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"{unpacked} has neither a folder {VOICES[voice]} nor {voice}; run examples/asterisk/fetch.sh"
    )


def reason_to_drop(path: Path) -> str | None:
    """Tells why a prompt is no speech; None if it is."""
    if path.parent.name == "silence":
        return "silence"
    if path.stem in _NOT_SPEECH:
        return _NOT_SPEECH[path.stem]
    if path.stat().st_size == 0:
        return "empty file"
    wav, _ = load_any_audio(path)
    return "silence" if np.abs(wav).max() < _SILENCE_PEAK else None


def speech_prompts(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Returns a voice's speech files, sorted, and the dropped ones with the reason of each."""
    reasons = {path: reason_to_drop(path) for path in sorted(folder.rglob("*.g722"))}
    kept = [path for path, reason in reasons.items() if reason is None]
    return kept, {path: reason for path, reason in reasons.items() if reason}


def copy_speech(unpacked: Path, out: Path) -> None:
    """Copies every voice and writes `dropped.tsv`."""
    dropped_lines = []
    for voice in VOICES:
        folder = find_voice(unpacked, voice)
        kept, dropped = speech_prompts(folder)
        for path in kept:
            target = out / voice / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_file() or target.stat().st_size != path.stat().st_size:
                shutil.copyfile(path, target)
        dropped_lines += [
            f"{voice}/{path.relative_to(folder)}\t{reason}\n" for path, reason in dropped.items()
        ]
        print(f"{voice}: {len(kept)} prompts, {len(dropped)} dropped")
    write_text(out / "dropped.tsv", "".join(dropped_lines))
    print(f"what was dropped and why: {out / 'dropped.tsv'}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    copy_speech(Path(sys.argv[1]), Path(sys.argv[2]))
