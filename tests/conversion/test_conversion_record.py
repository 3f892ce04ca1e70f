"""No conversion is taken for another's, none is written over unasked, and no recording ever."""

import json

import numpy as np
import pytest
import soundfile
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.conversion.folders import ConversionRecord


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "a.wav"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def make(outdir, settings, name, source):
    record = ConversionRecord(outdir, settings)
    record.begin(name, source)
    record.out(name).write_bytes(b"spoken")


def test_what_was_made_is_known_again(tmp_path, source):
    out, boris, anna = tmp_path / "out", {"target": "boris"}, {"target": "anna"}
    assert not ConversionRecord(out, boris).is_made("a", source)
    make(out, boris, "a", source)
    assert ConversionRecord(out, boris).is_made("a", source)
    assert not ConversionRecord(out, anna).is_made("a", source)
    make(out, anna, "b", source)  # another name in the same folder takes nothing away
    assert ConversionRecord(out, boris).is_made("a", source)
    assert not ConversionRecord(out, anna).is_made("a", source)
    ConversionRecord(out, boris).refuse({"a": source}, [], False)
    source.write_bytes(b"two")
    assert not ConversionRecord(out, boris).is_made("a", source)
    ConversionRecord(out, boris).refuse(
        {"a": source}, [], False
    )  # the same file, changed: made again


def test_an_interrupted_run_is_not_taken_for_done(tmp_path, source):
    out, settings = tmp_path / "out", {"target": "boris"}
    make(out, {"target": "anna"}, "a", source)
    ConversionRecord(out, settings).begin("a", source)  # and stops before it has written
    assert not (out / "a.wav").exists()
    with (out / "conversion.jsonl").open("a") as stream:
        stream.write('{"name": "b", "sett')
    record = ConversionRecord(out, settings)
    record.refuse({"a": source}, [], False)
    assert not record.is_made("a", source)
    lines = (out / "conversion.jsonl").read_text().splitlines()
    (out / "conversion.jsonl").write_text("\n".join(["[]", *lines]))
    with pytest.raises(ValueError, match="conversion.jsonl:1: no line of"):
        ConversionRecord(out, settings)


def test_files_in_the_way_are_named(tmp_path, source):
    out, settings = tmp_path / "out", {"target": "boris"}
    make(out, settings, "a", source)
    other = tmp_path / "other" / "a.wav"
    other.parent.mkdir()
    other.write_bytes(b"one")
    refused = "a.wav is there, and not of these settings and this recording"
    with pytest.raises(ValueError, match=refused):
        ConversionRecord(out, settings).refuse({"a": other}, [], False)
    with pytest.raises(ValueError, match=refused):
        ConversionRecord(out, {"target": "anna"}).refuse({"a": source}, [], False)
    (out / "mine.wav").write_bytes(b"x")
    with pytest.raises(ValueError, match="mine.wav is there"):
        ConversionRecord(out, settings).refuse({"mine": source}, [], False)
    record = ConversionRecord(out, settings)
    record.refuse({"a": other, "mine": source}, [], overwrite=True)
    with pytest.raises(ValueError, match="a.wav is read by this conversion"):
        ConversionRecord(source.parent, settings).refuse({"a": source}, [], overwrite=True)
    with pytest.raises(ValueError, match="mine.wav is read by this conversion"):
        record.refuse({"mine": source}, [out / "mine.wav"], overwrite=True)


def test_recordings_survive_every_command(tmp_path, capsys):
    bundle = save_tiny_bundle(tmp_path / "bundle", False, f0_channels=0, f0_codes={})
    folder = tmp_path / "speech" / "anna"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        soundfile.write(folder / f"{name}.wav", *soundfile.read(ENGLISH))
    wav = folder / "a.wav"
    before = wav.read_bytes()
    for command in (
        ["convert", wav, "--bundle", bundle, "--outdir", folder, "--overwrite", "--target", "anna"],
        ["resynthesize", wav, "--bundle", bundle, "--outdir", folder, "--target", "anna"],
        ["resynthesize", wav, "--bundle", bundle, "--out", wav, "--target", "anna"],
    ):
        assert main(list(map(str, command))) == 2
        assert "a.wav is " in capsys.readouterr().err and wav.read_bytes() == before
    line = {"audio": str(wav), "hubert": "1 2 3"}
    (tmp_path / "units.txt").write_text(str(line) + "\n")
    command = [
        "synthesize",
        "--bundle",
        bundle,
        "--input",
        tmp_path / "units.txt",
        "--target",
        "anna",
    ]
    assert main(list(map(str, [*command, "--outdir", "/"]))) == 2  # NAME.wav there is the recording
    assert "is a recording of the data" in capsys.readouterr().err and wav.read_bytes() == before


def test_synthesis_of_other_settings_is_made_again_even_after_an_interruption(tmp_path, capsys):
    bundle = save_tiny_bundle(tmp_path / "bundle", False, f0_channels=0, f0_codes={})
    (tmp_path / "units.txt").write_text("a|1 2 3\nb|4 5 6\n")
    command = ["synthesize", "--bundle", bundle, "--input", tmp_path / "units.txt", "--outdir"]
    command = list(map(str, [*command, tmp_path / "out", "--target"]))
    assert main([*command, "anna"]) == main([*command, "anna"]) == 0
    assert "0 files written" in capsys.readouterr().out.splitlines()[-1]
    old = {name: (tmp_path / "out" / f"{name}.wav").read_bytes() for name in "ab"}
    assert main([*command, "boris", "-n", "1"]) == 0
    assert main([*command, "boris"]) == 0
    assert "1 files written" in capsys.readouterr().out.splitlines()[-1]
    new = [soundfile.read(tmp_path / "out" / f"{name}.wav")[0] for name in "ab"]
    assert all(np.isfinite(wav).all() for wav in new)
    assert all((tmp_path / "out" / f"{name}.wav").read_bytes() != old[name] for name in "ab")


def test_units_that_were_made_again_are_spoken_again(tmp_path, capsys):
    bundle = save_tiny_bundle(tmp_path / "bundle", False, f0_channels=0, f0_codes={})
    units, out = tmp_path / "units.txt", tmp_path / "out"
    command = ["synthesize", "--path", bundle, "--input", units, "--outdir", out]
    command = list(map(str, [*command, "--speaker", "anna", "--json"]))

    def synthesize(text):
        units.write_text(text)
        assert main(command) == 0
        done = json.loads(capsys.readouterr().out)
        return done["written"], done["reused"]

    assert synthesize("a|1 2 3\nb|4 5 6\n") == (2, 0)
    old = {name: (out / f"{name}.wav").read_bytes() for name in "ab"}
    assert synthesize("a|1 2 3\nb|6 5 4\n") == (1, 1)
    assert (out / "a.wav").read_bytes() == old["a"]
    assert (out / "b.wav").read_bytes() != old["b"]
    assert synthesize("b|6 5 4\n") == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "-3", "--target", "anna"], "expected 0 (all) or more"),
        (["--vc", "--random-targets", "-1"], "expected 0 (all) or more"),
        (["--target", "anna", "--dur-prediction", "--rate", "9"], "expected 0.25 to 4"),
        (["--target", "anna", "--style", "sad"], "this one has none"),
        ([], "give a speaker; the model has anna, boris"),
        (["--vc", "--pitch"], "needs pitch, and an utterance comes without it"),
    ],
)
def test_mistakes_of_synthesize_are_one_sentence(tmp_path, capsys, options, message):
    none = {} if "--pitch" in options else {"f0_channels": 0, "f0_codes": {}}
    bundle = save_tiny_bundle(tmp_path / "bundle", False, **none)
    (tmp_path / "units.txt").write_text("a|1 2 3\n")
    command = ["synthesize", "--bundle", bundle, "--input", tmp_path / "units.txt"]
    options = [option for option in options if option != "--pitch"]
    assert main(list(map(str, [*command, "--outdir", tmp_path / "out", *options]))) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and "Traceback" not in "".join(lines)


def test_a_style_for_a_model_without_is_refused(tmp_path, capsys):
    bundle = save_tiny_bundle(tmp_path / "bundle", False, f0_channels=0, f0_codes={})
    command = ["resynthesize", ENGLISH, "--bundle", bundle, "--target", "anna", "--style", "sad"]
    assert main(list(map(str, [*command, "--out", tmp_path / "a.wav"]))) == 2
    assert "this one has none" in capsys.readouterr().err
