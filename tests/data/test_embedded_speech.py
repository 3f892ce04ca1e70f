"""The speech in the repository is what its attribution says, and the scripts that choose it work."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/asterisk"
SPEECH = EXAMPLE / "speech"
VOICES = ["english", "french", "italian", "russian", "spanish"]


def test_five_voices_of_short_prompts_under_8_megabytes():
    assert sorted(path.name for path in SPEECH.iterdir() if path.is_dir()) == VOICES
    seconds = dict.fromkeys(VOICES, 0.0)
    for path in SPEECH.rglob("*.flac"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16"), path
        assert 1.5 <= info.duration <= 8, path
        seconds[path.parent.name] += info.duration
    assert all(75 < total < 78 for total in seconds.values())
    assert sum(path.stat().st_size for path in SPEECH.rglob("*") if path.is_file()) < 8e6


def test_every_voice_is_attributed_and_the_licenses_lie_beside():
    text = (SPEECH / "ATTRIBUTION.md").read_text()
    for name in (
        "Allison Smith",
        "June Wallack",
        "Carlo Flora",
        "IvrvoiceRU",
        "CC BY-SA 3.0",
        "CC BY 3.0",
    ):
        assert name in text
    assert all(f"`{voice}/`" in text for voice in VOICES)
    for license in ("CC-BY-SA-3.0", "CC-BY-3.0"):
        assert (SPEECH / f"LICENSE.{license}.txt").stat().st_size > 10_000


@pytest.fixture
def unpacked(tmp_path):
    """Two prompts, a beep, silence and an empty file for each voice, as Asterisk's archives unpack."""
    from test_audio import encode_with_av

    rng = np.random.default_rng(0)
    for voice in VOICES:
        folder = tmp_path / "unpacked" / voice
        (folder / "digits").mkdir(parents=True)
        (folder / "silence").mkdir()
        (folder / "is.g722").touch()
        names = {"hello": 2.0, "digits/1": 0.6, "beep": 0.4, "silence/1": 1.0, "quiet": 1.0}
        for name, seconds in names.items():
            level = 1e-4 if name in ("quiet", "silence/1") else 0.2
            wav = level * rng.uniform(-1, 1, int(16000 * seconds))
            encode_with_av(folder / f"{name}.g722", "g722", "g722", 16000, wav)
    return tmp_path / "unpacked"


def script(name, *arguments):
    command = [sys.executable, EXAMPLE / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_is_no_speech_is_dropped_with_its_reason(unpacked, tmp_path):
    done = script("prompts.py", unpacked, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "italian: 2 prompts, 4 dropped" in done.stdout
    kept = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.g722")
    )
    assert kept == [f"{voice}/{name}.g722" for voice in VOICES for name in ("digits/1", "hello")]
    dropped = (tmp_path / "out/dropped.tsv").read_text().splitlines()
    assert dropped[:4] == [
        "english/beep.g722\ta beep",
        "english/is.g722\tempty file",
        "english/quiet.g722\tsilence",
        "english/silence/1.g722\tsilence",
    ]


def test_the_embedded_selection_takes_whole_prompts_of_the_right_length(unpacked, tmp_path):
    done = script("build_embedded.py", unpacked, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.flac")
    )
    assert found == [f"{voice}/hello.flac" for voice in VOICES]
    (unpacked / "russian").rename(unpacked / "elsewhere")
    done = script("prompts.py", unpacked, tmp_path / "out")
    assert (
        "neither a folder ru_RU_f_IvrvoiceRU nor russian; run bash examples/asterisk/fetch.sh"
        in done.stderr
    )
