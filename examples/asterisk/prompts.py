"""Copy the speech of Asterisk's core sounds, one folder per voice, and list what is left out and why.

    python examples/asterisk/prompts.py UNPACKED OUT

UNPACKED contains the sounds of the five packages, unpacked by `dpkg -x`, or the archives of Asterisk's own
site, each unpacked into a folder of its own (see fetch.sh). OUT gets `<voice>/**.g722` and `dropped.tsv`.
Running the command again copies nothing twice.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.storage.files import write_text

# voice -> its folder in the Debian packages
VOICES = {
    "english": "en_US_f_Allison",
    "spanish": "es_MX_f_Allison",
    "french": "fr_CA_f_June",
    "italian": "it_IT_m_Carlo",
    "russian": "ru_RU_f_IvrvoiceRU",
}
# Sounds other than speech, in every voice. They are listed because measures take a beep for a vowel.
_NOT_SPEECH = {
    "beep": "a beep",
    "beeperr": "a beep",
    "ascending-2tone": "tones",
    "descending-2tone": "tones",
    "confbridge-join": "tones",
    "confbridge-leave": "tones",
    "tt-monkeys": "monkeys",
}
_SILENCE_PEAK = 0.005  # the peaks of prompts are above 0.1, those of silences below 0.0005


def find_voice(unpacked: Path, voice: str) -> Path:
    """The folder that contains the prompts of the voice.

    Raises:
        FileNotFoundError: Neither the folder of the package nor one named after the voice exists.
    """
    for folder in sorted(unpacked.rglob(VOICES[voice])) + [unpacked / voice]:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"{unpacked} has neither a folder {VOICES[voice]} nor {voice}; run bash examples/asterisk/fetch.sh"
    )


def reason_to_drop(path: Path) -> str | None:
    """Why a file is not speech; None if it is."""
    if path.parent.name == "silence":
        return "silence"
    if path.stem in _NOT_SPEECH:
        return _NOT_SPEECH[path.stem]
    if path.stat().st_size == 0:
        return "empty file"
    wav, _ = load_any_audio(path)
    return "silence" if np.abs(wav).max() < _SILENCE_PEAK else None


def speech_prompts(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """The sorted speech files of a voice, and the dropped files with the reason for each."""
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
    print(f"dropped files and the reasons: {out / 'dropped.tsv'}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    copy_speech(Path(sys.argv[1]), Path(sys.argv[2]))
