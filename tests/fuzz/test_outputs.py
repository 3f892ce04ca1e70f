"""Verbs that write, on mutated inputs: what they leave is whole or nothing, and they write nowhere else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from kinds import Kind
from kinds_of_data import AUDIO, DATA
from kinds_of_models import MODELS, write_bundle
from kinds_of_results import LISTS
from kinds_of_units import UNITS
from limits import failure, limited
from mutations import WORDS
from safetensors import safe_open

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.folders import write_archive
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.files import audio_length
from fairseq_resynth.data.storage.files import map_array, read_json
from fairseq_resynth.data.streams import Utterance


def _write_units(folder: Path) -> None:
    write_bundle(folder)
    (folder / "units.txt").write_text("a/b|1 2 3 4\nc|4 5 6 7\n")
    (folder / "units.f0").write_text("1\n2\n")


def _write_codes(folder: Path) -> None:
    UNITS["named.txt"].write(folder)
    (folder / "all.tsv").write_text(".\na.wav\t960\nb.wav\t640\n")


def _write_archive(folder: Path) -> None:
    write_bundle(folder)
    codec = SpeechCodec.from_pretrained(folder / "bundle", decode_only=True)
    data = codec.pack(Utterance(np.array([1, 1, 2, 3]), np.array([1]), "anna", 640))
    write_archive(folder / "a.rsyna", codec.identity, [("a/b", data), ("c", data)])


def rename(data: bytes, rng: Random) -> bytes:
    """Names that point elsewhere, in a text file of units."""
    name = rng.choice(["../../evil", "/tmp/evil", "a/../../evil", "..", ".", *WORDS])
    return data.replace(rng.choice([b"a/b", b"c|"]), name.encode() + rng.choice([b"", b"|"]))


VOICE = ["--target", "anna", "--style", "sad"]
MUTATED = {
    "preprocess": (AUDIO["a.flac"], lambda path: ["--srcdir", path.parent, "--workers", "0"]),
    "parse-codes": (
        Kind(_write_codes, "named.txt", (), UNITS["named.txt"].changes),
        lambda path: [
            "--codes",
            path,
            "--manifest",
            path.parent / "all.tsv",
            "--cv",
            "0",
            "--tt",
            "0",
        ],
    ),
    "synthesize": (
        Kind(_write_units, "units.txt", (), (*UNITS["named.txt"].changes, rename, rename)),
        lambda path: ["--bundle", path.parent / "bundle", "--input", path, *VOICE],
    ),
    "decode": (
        Kind(_write_archive, "a.rsyna", (), MODELS["a.rsyna"].changes[1:]),
        lambda path: [path, "--bundle", path.parent / "bundle", "--style", "sad"],
    ),
    "pack": (DATA["train.units"], lambda path: [path.parent, "--workers", "0"]),
    "import": (
        MODELS["published config"],
        lambda path: [path.parent, "--from", "speech-resynthesis"],
    ),
    "report": (LISTS["rows.json"], lambda path: [path.parent]),
}
OPENERS: dict[str, Callable[[Path], object]] = {
    ".wav": audio_length,
    ".flac": audio_length,
    ".json": read_json,
    ".npy": map_array,
    ".safetensors": lambda path: safe_open(path, "np"),
}


def check(verb: str, folder: Path, count: int, capfd: pytest.CaptureFixture) -> None:
    kind, arguments = MUTATED[verb]
    inputs, out = folder / "in", folder / "out" / "here"
    inputs.mkdir()
    kind.write(inputs)
    (path,) = inputs.glob(kind.target)
    option = "--out" if verb == "decode" else "--outdir"
    command = [verb, *map(str, [*arguments(path), option, out])]
    valid, names, rng = path.read_bytes(), sorted(inputs.rglob("*")), Random(1)
    assert main(command) == 0
    for number in range(count):
        shutil.rmtree(out.parent)
        path.write_bytes(rng.choice(kind.changes)(valid, rng))
        capfd.readouterr()
        statuses: list[int] = []
        with limited(folder / "out"):
            wrong = failure(lambda _: statuses.append(main(command)), path)  # noqa: B023
        printed = capfd.readouterr().err
        assert not wrong and statuses[0] in (0, 1, 2), f"input {number}: {wrong}"
        assert "Traceback" not in printed and printed.count("error:") <= 1, printed
        assert sorted(inputs.rglob("*")) == names
        assert {each.name for each in folder.iterdir()} <= {"in", "out"}
        out.parent.mkdir(exist_ok=True)
        assert {each.name for each in out.parent.iterdir()} <= {"here"}
        made = [each for each in out.rglob("*") if each.is_file()]
        assert statuses[0] != 2 or not made, f"input {number}: {printed} left {made}"
        for each in made:
            assert ".tmp" not in each.name
            OPENERS.get(each.suffix, Path.read_bytes)(each)


@pytest.mark.parametrize("verb", MUTATED)
def test_mutated_inputs_leave_whole_outputs_or_none(verb, tmp_path, capfd):
    check(verb, tmp_path, 6, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("verb", MUTATED)
def test_many_mutated_inputs_leave_whole_outputs_or_none(verb, tmp_path, capfd):
    check(verb, tmp_path, 300, capfd)
