"""GSLM's and pGSLM's files to speech, byte-pair encoding, and a real unit language model."""

import json
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import PLUGIN, SPEECH, run
from tiny_bundles import write_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.unit_files import read_generated_units
from fairseq_resynth.data.units import collapse_runs
from fairseq_resynth.preparation.unit_bpe import UnitBpe, train_bpe


def synthesize(bundle, source, out, *options):
    arguments = [
        "--bundle",
        bundle,
        "--input",
        source,
        "--outdir",
        out,
        "--subtype",
        "FLOAT",
        *options,
    ]
    return main(["synthesize", *map(str, arguments)])


def read(path):
    return soundfile.read(path, dtype="float32")[0]


# files of GSLM and pGSLM


def test_gslms_output_with_and_without_names(tmp_path):
    system = write_bundle("units", tmp_path / "bundle")
    (tmp_path / "named.txt").write_text("LJ001-0001|1 1 2 9\nLJ001-0002|3 3\n")
    (tmp_path / "bare.txt").write_text("1 1 2 9\n3 3\n")
    assert synthesize(tmp_path / "bundle", tmp_path / "named.txt", tmp_path / "a") == 0
    assert synthesize(tmp_path / "bundle", tmp_path / "bare.txt", tmp_path / "b") == 0
    expected = system.decode(np.array([[1, 1, 2, 9]]))[0, 0]
    np.testing.assert_allclose(read(tmp_path / "a" / "LJ001-0001.wav"), expected, atol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "b" / "line_1.wav"), expected, atol=1e-6)
    assert (tmp_path / "b" / "line_2.wav").is_file()


INTERACTIVE = """S-0\t1 2
W-0\t0.1\tseconds
H-0\t-1.5\t1 2 2 9 madeupword0003
D-0\t-1.5\t1 2 2 9
P-0\t-1.0 -1.0
H-0\t-1.7\t4 <unk> 5
H-1\t-2.0\t7 </s>
H-2\t-9.0\t</s>
"""


def test_samples_of_a_language_model(tmp_path, capsys):
    system = write_bundle("units, durations", tmp_path / "bundle")
    (tmp_path / "log.txt").write_text(INTERACTIVE)
    found = read_generated_units(tmp_path / "log.txt")
    assert [(row.name, row.units.tolist()) for row in found.rows] == [
        ("0__0", [1, 2, 2, 9]),
        ("0__1", [4, 5]),
        ("1__0", [7]),
    ]
    assert found.dropped == Counter({"</s>": 2, "<unk>": 1, "madeupword0003": 1})
    assert found.empty == ["2__0"]
    out = tmp_path / "out"
    assert synthesize(tmp_path / "bundle", tmp_path / "log.txt", out, "--dur-prediction") == 0
    printed = capsys.readouterr().out
    assert "1 times <unk> left out" in printed and "2__0: no unit in it" in printed
    expected = system.speak([np.array([1, 2, 9])])[0]
    np.testing.assert_allclose(read(out / "0__0.wav"), expected, atol=1e-6)
    slow = ("--dur-prediction", "--rate", "0.25")
    assert synthesize(tmp_path / "bundle", tmp_path / "log.txt", tmp_path / "slow", *slow) == 0
    assert len(read(tmp_path / "slow" / "0__0.wav")) > len(expected)


@pytest.mark.parametrize(
    "text,message",
    [
        ("1 2 three\n", "samples.txt:1: expected integers"),
        ("</s>\n", "expected units, found none in the file"),
        ("a|1\na|2\n", "a is already on line 1"),
        ("1 99\n", "the model has 0 to 9"),
    ],
)
def test_wrong_samples(text, message, tmp_path, capsys):
    write_bundle("units, durations", tmp_path / "bundle")
    (tmp_path / "samples.txt").write_text(text)
    out = tmp_path / "out"
    assert synthesize(tmp_path / "bundle", tmp_path / "samples.txt", out, "--dur-prediction") == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_rate_needs_durations(tmp_path, capsys):
    write_bundle("units", tmp_path / "bundle")
    (tmp_path / "samples.txt").write_text("1 2\n")
    out = tmp_path / "out"
    assert synthesize(tmp_path / "bundle", tmp_path / "samples.txt", out, "--rate", "2") == 2
    assert "--rate needs --dur-prediction" in capsys.readouterr().err
    assert synthesize(tmp_path / "bundle", tmp_path / "samples.txt", out, "--dur-prediction") == 2
    assert "no duration predictor" in capsys.readouterr().err


def test_pgslms_lines_with_codes(tmp_path):
    """Units and pitch once a run, with durations, as pGSLM's streams are; unrolled, as its samples are."""
    system = write_bundle("units, pitch, speaker", tmp_path / "bundle")
    streams = {"audio": "x/a.wav", "hubert": "3 1 4", "duration": "4 1 3", "f0": [2, 0, 4]}
    unrolled = {
        "audio": "x/b.wav",
        "hubert": "3 3 3 3 1 4 4 4",
        "duration": 0.16,
        "f0": [2, 2, 2, 2, 0, 4, 4, 4],
        "speaker": "bob",
    }
    (tmp_path / "in.txt").write_text(f"{streams | {'spk': 'bob'}}\n{unrolled}\n")
    assert synthesize(tmp_path / "bundle", tmp_path / "in.txt", tmp_path / "out") == 0
    units = np.array([[3, 3, 3, 3, 1, 4, 4, 4]])
    expected = system.decode(units, np.array([[2, 4]]), "bob")[0, 0]
    for name in "ab":
        np.testing.assert_allclose(
            read(tmp_path / "out" / "x" / f"{name}.wav"), expected, atol=1e-6
        )


def test_pgslms_lines_with_continuous_pitch(tmp_path):
    system = write_bundle("units, raw pitch", tmp_path / "bundle")
    line = {"hubert": "3 1", "durations": [2, 1], "f0": [0.5, -1.25]}
    (tmp_path / "in.txt").write_text(f"{line}\n")
    assert synthesize(tmp_path / "bundle", tmp_path / "in.txt", tmp_path / "out") == 0
    f0 = np.repeat(np.float32([0.5, 0.5, -1.25]), 4)[None, None]
    expected = system.decode(np.array([[3, 3, 1]]), f0=f0)[0, 0]
    np.testing.assert_allclose(read(tmp_path / "out" / "line_1.wav"), expected, atol=1e-6)


def test_continuous_pitch_for_a_model_of_codes(tmp_path, capsys):
    write_bundle("units, pitch, speaker", tmp_path / "bundle")
    (tmp_path / "in.txt").write_text("{'hubert': '1 2', 'f0': [0.5, 1.0], 'spk': 'ann'}\n")
    assert synthesize(tmp_path / "bundle", tmp_path / "in.txt", tmp_path / "out") == 2
    assert "is continuous, and the model has 5 codes" in capsys.readouterr().err


# byte-pair encoding


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    rng = np.random.default_rng(0)
    words = [rng.integers(12, size=5) for _ in range(6)]
    rows = [np.concatenate([words[i] for i in rng.integers(6, size=30)]) for _ in range(20)]
    path = tmp_path_factory.mktemp("bpe") / "bpe.model"
    train_bpe(rows, 12, 40, path)
    return UnitBpe(path), rows


def test_bpe_is_shorter(bpe):
    model, rows = bpe
    tokens = sum(len(model.encode(row)) for row in rows)
    assert tokens < 0.4 * sum(len(collapse_runs(row)[0]) for row in rows)
    assert model.num_units == 12 and model.vocab_size <= 40


@given(st.lists(st.integers(0, 11), max_size=60))
def test_bpe_loses_nothing(bpe, units):
    model, _ = bpe
    assert model.decode(model.encode(units)).tolist() == collapse_runs(units)[0].tolist()


def test_bpe_commands(tmp_path, capsys):
    units, model, coded = tmp_path / "a.txt", tmp_path / "m.model", tmp_path / "coded"
    units.write_text("a|" + "1 1 2 3 " * 40 + "\nb|3 3 0 5\n")
    common = ["--units", str(units), "--model", str(model)]
    assert main(["bpe", "train", *common, "--num-units", "8", "--vocab-size", "16"]) == 0
    assert "times shorter than the units" in capsys.readouterr().out
    assert main(["bpe", "encode", *common, "--out", str(coded), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 164 and summary["units"] == 123
    assert summary["tokens"] < 40
    out = tmp_path / "out"
    decode = ["--units", str(coded), "--model", str(model), "--out", str(out)]
    assert main(["bpe", "decode", *decode]) == 0
    assert out.read_text() == "a|" + " ".join(["1 2 3"] * 40) + "\nb|3 0 5\n"
    units.write_text("1 8\n")
    assert main(["bpe", "encode", *common, "--out", str(coded)]) == 2
    assert "found units up to 8, expected 0 to 7" in capsys.readouterr().err
    assert main(["bpe", "train", *common, "--vocab-size", "9"]) == 2
    assert "expected at least 13" in capsys.readouterr().err
    coded.write_text("0 1\n")
    assert main(["bpe", "decode", *decode]) == 2
    assert "token 0 stands for no unit" in capsys.readouterr().err


# a recording in one command


def test_resynthesize(tmp_path, capsys):
    from fairseq_resynth.inference.bundle import load_bundle, save_bundle

    write_bundle("units at 100 Hz", tmp_path / "bundle")
    data = tmp_path / "data"
    source = SPEECH / "english"
    assert main(["manifest", str(source), "--outdir", str(data), "--seed", "1"]) == 0
    kmeans = tmp_path / "km.safetensors"
    options = ["--feature-type", "logmel", "--num-clusters", "10", "--out", str(kmeans)]
    assert main(["kmeans", str(data), *options]) == 0
    bundle = load_bundle(tmp_path / "bundle")
    bundle.kmeans = kmeans
    save_bundle(tmp_path / "full", bundle)
    audio, out = source / "call-from.flac", tmp_path / "out.wav"
    arguments = [str(audio), "--bundle", str(tmp_path / "full"), "--out", str(out)]
    assert main(["resynthesize", *arguments]) == 0
    seconds = soundfile.info(out).duration
    assert abs(seconds - soundfile.info(audio).duration) < 0.05
    assert main(["resynthesize", *arguments, "--speaker", "bob"]) == 2
    assert "unknown speaker 'bob'" in capsys.readouterr().err
    other = write_bundle("units", tmp_path / "other").bundle
    other.kmeans = kmeans
    save_bundle(tmp_path / "wrong", other)
    arguments[2] = str(tmp_path / "wrong")
    assert main(["resynthesize", *arguments]) == 2
    assert (
        "makes 10 units of 160 samples, the model was trained on 10 of 320"
        in capsys.readouterr().err
    )


# a language model


@pytest.mark.slow
def test_unit_language_model(tmp_path):
    """As GSLM's README: preprocess, train, sample by fairseq-interactive; then speech."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("valid", 6)):
        rows = [(rng.integers(10) + np.arange(20)) % 10 for _ in range(count)]
        (tmp_path / f"{split}.txt").write_text("".join(" ".join(map(str, r)) + "\n" for r in rows))
    bin_folder, save = tmp_path / "bin", tmp_path / "save"
    run(
        "fairseq-preprocess", "--only-source", "--trainpref", tmp_path / "train.txt",
        "--validpref", tmp_path / "valid.txt", "--destdir", bin_folder,
    )  # fmt: skip
    run(
        "fairseq-train", bin_folder, "--user-dir", PLUGIN, "--task", "language_modeling",
        "--arch", "transformer_lm", "--decoder-layers", "1", "--decoder-embed-dim", "32",
        "--decoder-ffn-embed-dim", "64",
        "--decoder-attention-heads", "2", "--optimizer", "adam", "--lr", "0.01", "--dropout", "0",
        "--lr-scheduler", "fixed", "--tokens-per-sample", "64", "--max-tokens", "512", "--cpu",
        "--sample-break-mode", "eos", "--max-update", "40", "--save-dir", save, "--num-workers", "0",
        "--no-epoch-checkpoints", "--disable-validation",
    )  # fmt: skip
    done = run(
        "fairseq-interactive", bin_folder, "--user-dir", PLUGIN, "--task", "language_modeling",
        "--cpu", "--path", save / "checkpoint_last.pt", "--beam", "1", "--max-len-b", "12",
        input="4 5 6\n8 9\n",
    )  # fmt: skip
    (tmp_path / "samples.txt").write_text(done.stdout)
    rows = read_generated_units(tmp_path / "samples.txt").rows
    assert len(rows) == 2 and rows[0].units[:3].tolist() == [4, 5, 6]
    steps = np.concatenate([np.diff(row.units) % 10 for row in rows])
    assert len(steps) > 8 and np.mean(steps == 1) > 0.8  # it has learned to count
    system = write_bundle("units, durations", tmp_path / "bundle")
    out = tmp_path / "out"
    assert synthesize(tmp_path / "bundle", tmp_path / "samples.txt", out, "--dur-prediction") == 0
    expected = system.speak([rows[1].units])[0]
    np.testing.assert_allclose(read(out / "1__0.wav"), expected, atol=1e-6)
