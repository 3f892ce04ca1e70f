"""No conversion is taken for another's, none is replaced without --overwrite, and no recording ever."""

import json

import numpy as np
import pytest
import soundfile
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.conversion import folders
from fairseq_resynth.conversion.convert import Controls
from fairseq_resynth.conversion.folders import refuse_conflicts
from fairseq_resynth.data.storage.resume import Record


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "a.wav"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def settings(record, **controls):
    values = {"pitch": None, "durations": None} | controls
    return record.key(folders._settings("boris", None, Controls(**values)))


def make(outdir, made_by, name, source):
    with Record(outdir) as record:
        key, facts = record.key(made_by, source), folders._facts(made_by, source)
        with record.writing(f"{name}.wav", key, facts) as temporary:
            temporary.write_bytes(name.encode())


def is_made(outdir, made_by, name, source):
    record = Record(outdir)
    return record.find(f"{name}.wav", record.key(made_by, source)) is not None


def refuse(outdir, made_by, inputs, others=(), overwrite=False):
    refuse_conflicts(Record(outdir), made_by, inputs, others, overwrite)


def test_what_was_made_is_known_again(tmp_path, source):
    out = tmp_path / "out"
    assert not is_made(out, "boris", "a", source)
    make(out, "boris", "a", source)
    assert is_made(out, "boris", "a", source)
    assert not is_made(out, "anna", "a", source)
    make(out, "anna", "b", source)  # another name in the same folder takes nothing away
    assert is_made(out, "boris", "a", source)
    assert not is_made(out, "anna", "a", source)
    refuse(out, "boris", {"a": source})
    source.write_bytes(b"two")
    assert not is_made(out, "boris", "a", source)
    refuse(out, "boris", {"a": source})  # the same file, changed: made again


def test_settings_follow_the_contents_of_the_files_that_they_name(tmp_path, source):
    record, melody = Record(tmp_path / "out"), tmp_path / "melody.wav"
    melody.write_bytes(b"one")
    before = settings(record, pitch=f"from={melody}")
    moved = melody.rename(tmp_path / "moved.wav")
    assert settings(record, pitch=f"from={moved}") == before
    assert settings(record, durations=f"from={moved}") != before
    assert settings(record, pitch="shift=+3st") not in (before, settings(record))
    moved.write_bytes(b"two")
    assert settings(record, pitch=f"from={moved}") != before


def test_an_interrupted_run_is_not_taken_for_done(tmp_path, source, monkeypatch):
    out = tmp_path / "out"
    make(out, "anna", "a", source)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fairseq_resynth.data.storage.files.os.replace", interrupt)
        make(out, "boris", "b", source)
    assert not is_made(out, "boris", "b", source) and not (out / "b.wav").exists()
    refuse(out, "boris", {"b": source})
    assert is_made(out, "anna", "a", source)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_files_in_the_way_are_named(tmp_path, source):
    out = tmp_path / "out"
    make(out, "boris", "a", source)
    other = tmp_path / "other" / "a.wav"
    other.parent.mkdir()
    other.write_bytes(b"one")
    refused = (
        "a.wav exists, and this version has no record that it was made from .* with these settings"
    )
    with pytest.raises(ValueError, match=refused):
        refuse(out, "boris", {"a": other})
    with pytest.raises(ValueError, match=refused):
        refuse(out, "anna", {"a": source})
    (out / "mine.wav").write_bytes(b"x")
    with pytest.raises(ValueError, match="mine.wav exists"):
        refuse(out, "boris", {"mine": source})
    refuse(out, "boris", {"a": other, "mine": source}, overwrite=True)
    with pytest.raises(ValueError, match="a.wav is read by this conversion"):
        refuse(source.parent, "boris", {"a": source}, overwrite=True)
    with pytest.raises(ValueError, match="mine.wav is read by this conversion"):
        refuse(out, "boris", {"mine": source}, [out / "mine.wav"], overwrite=True)


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
