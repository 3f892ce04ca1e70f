"""`resynth kmeans` and `resynth quantize` through the command line, for every encoder."""

import json
import logging
import subprocess
import sys

import fairseq.examples
import joblib
import numpy as np
import pytest
import soundfile
import torch
from sklearn.cluster import MiniBatchKMeans
from tiny_checkpoints import save_cpc, save_hubert, save_wav2vec2

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.manifest import read_manifest, write_manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.encoders.content import ContentEncoder, load_kmeans


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for index in range(10):
        wav = np.cumsum(generator.normal(0, 0.02, 6000 + 777 * index)).astype(np.float32) % 1 - 0.5
        soundfile.write(folder / f"{index}.wav", wav, 16000)
    return folder


@pytest.fixture
def data(corpus, tmp_path):
    rows = [(path.name, soundfile.info(path).frames) for path in sorted(corpus.glob("*.wav"))]
    write_manifest(tmp_path / "train.tsv", corpus, rows[:7])
    write_manifest(tmp_path / "test.tsv", corpus, rows[7:])
    return tmp_path


def _checkpoint(name, folder):
    if name == "logmel":
        return []
    save = {
        "hubert": lambda path: save_hubert(path, "omegaconf"),
        "w2v2": save_wav2vec2,
        "cpc": save_cpc,
    }
    return ["--content-checkpoint", str(save[name](folder / f"{name}.pt")), "--layer", "2"]


@pytest.mark.parametrize(
    ("name", "hop"), [("logmel", 160), ("hubert", 320), ("w2v2", 320), ("cpc", 160)]
)
def test_kmeans_and_quantize(name, hop, data, capsys):
    km, checkpoint = str(data / "km.safetensors"), _checkpoint(name, data)
    options = ["--feature-type", name, *checkpoint]
    assert main(["kmeans", str(data), *options, "--num-clusters", "8", "--out", km, "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert (
        fitted["files"] == 7
        and fitted["frames"] == fitted["frames_used"]
        and fitted["failed"] == {}
    )
    assert (
        main(["quantize", str(data), *options, "--kmeans", km, "--batch-seconds", "2", "--json"])
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert [summary[split]["rows"] for split in ("train", "test")] == [7, 3]
    found = read_json(data / "units.json")
    assert (found["feature_type"], found["unit_hop"], found["num_clusters"]) == (name, hop, 8)
    assert found["checkpoint"] == (None if name == "logmel" else f"{name}.pt")

    path = checkpoint[1] if checkpoint else None
    encoder = ContentEncoder.from_kmeans(km, path)
    assert (encoder.unit_hop, encoder.num_units, encoder.description["kmeans"]) == (
        hop,
        8,
        "km.safetensors",
    )
    for split in ("train", "test"):
        manifest = read_manifest(data / f"{split}.tsv")
        units = read_integer_rows(data / f"{split}.units", len(manifest), "resynth quantize")
        assert units.maximum <= 7 and len(np.unique(units[0])) > 2
        for row in range(len(manifest)):
            wav = soundfile.read(manifest.path(row), dtype="float32")[0]
            np.testing.assert_array_equal(units[row], encoder.encode(wav))
            assert len(encoder.features(wav)) == len(units[row])


def test_units_equal_those_of_gslms_own_script(data, monkeypatch):
    """GSLM's quantize_with_kmeans.py with the same centroids, in scikit-learn's class."""
    assert _fit(data) == 0
    assert (
        main(["quantize", str(data), "--kmeans", str(data / "km.safetensors"), "--split", "train"])
        == 0
    )
    # GSLM's script imports fairseq's examples as `examples`
    monkeypatch.setitem(sys.modules, "examples", fairseq.examples)
    from examples.textless_nlp.gslm.speech2unit.clustering import quantize_with_kmeans as gslm

    model = MiniBatchKMeans(8, n_init=1).fit(
        np.random.default_rng(0).normal(size=(50, 80)).astype(np.float32)
    )
    model.cluster_centers_ = load_kmeans(data / "km.safetensors").centroids
    joblib.dump(model, data / "km.bin")
    options = [
        "--feature_type",
        "logmel",
        "--kmeans_model_path",
        str(data / "km.bin"),
        "--hide-fname",
    ]
    options += ["--manifest_path", str(data / "train.tsv"), "--extension", ".wav"]
    out = data / "out" / "train.units"
    arguments = gslm.get_parser().parse_args([*options, "--out_quantized_file_path", str(out)])
    gslm.main(arguments, logging.getLogger("gslm"))
    assert out.read_bytes() == (data / "train.units").read_bytes()


def _fit(data, *options):
    arguments = [
        "--feature-type",
        "logmel",
        "--num-clusters",
        "8",
        "--out",
        str(data / "km.safetensors"),
    ]
    return main(["kmeans", str(data), *arguments, *options])


def test_the_same_seed_gives_the_same_file_in_any_order_of_rows(data, capsys):
    assert _fit(data, "--max-frames", "100", "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames_used"] == 100
    first = (data / "km.safetensors").read_bytes()
    lines = (data / "train.tsv").read_text().splitlines()
    (data / "train.tsv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert _fit(data, "--max-frames", "100", "--batch-seconds", "1") == 0
    assert (data / "km.safetensors").read_bytes() == first
    assert _fit(data, "--max-frames", "100", "--seed", "2") == 0
    assert (data / "km.safetensors").read_bytes() != first
    assert _fit(data, "--max-frames", "-1") == 2
    assert "--max-frames is -1, expected 1 or more" in capsys.readouterr().err


def test_shards_as_processes_join(data):
    assert _fit(data) == 0
    command = [sys.executable, "-m", "fairseq_resynth.cli.main", "quantize", str(data), "--kmeans"]
    command.append(str(data / "km.safetensors"))
    subprocess.run([*command, "--shard", "2/2"], check=True, capture_output=True)
    assert not (data / "train.units").exists()
    subprocess.run([*command, "--shard", "1/2"], check=True, capture_output=True)
    together = (data / "train.units").read_bytes()
    (data / "train.units").unlink()
    assert main(["quantize", str(data), "--kmeans", str(data / "km.safetensors")]) == 0
    assert (data / "train.units").read_bytes() == together


def test_failed_files_are_named_and_the_status_is_1(data, corpus, tmp_path, capsys):
    assert _fit(data) == 0
    rows = [
        ("0.wav", 6000),
        ("short.wav", 3),
        ("silent.wav", 8000),
        ("stereo.wav", 8000),
        ("nan.wav", 8000),
    ]
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "0.wav", soundfile.read(corpus / "0.wav")[0], 16000)
    soundfile.write(other / "short.wav", np.full(3, 0.1), 16000)
    soundfile.write(other / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(other / "stereo.wav", np.random.default_rng(0).normal(0, 0.1, (8000, 2)), 16000)
    soundfile.write(other / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    write_manifest(other / "train.tsv", other, rows)
    capsys.readouterr()
    assert main(["quantize", str(other), "--kmeans", str(data / "km.safetensors")]) == 1
    out = capsys.readouterr().out
    assert "4 rows of train.units failed" in out and "not written: repair these files" in out
    assert "short.wav: 3 samples are too short for a frame, expected 400 or more" in out
    assert "silent.wav is silent" in out and "stereo.wav: found 2 channels, expected 1" in out
    assert "nan.wav: sample 0 is nan" in out
    assert not (other / "train.units").exists()
    assert _fit(other) == 1
    assert "4 failed and were left out" in capsys.readouterr().out


def test_mistakes_are_one_sentence(data, capsys):
    assert _fit(data) == 0
    km = str(data / "km.safetensors")
    torch.save({}, data / "empty.pt")
    cases = [
        (
            ["kmeans", str(data), "--feature-type", "hubert", "--out", km],
            "hubert needs --content-checkpoint and",
        ),
        (
            ["kmeans", str(data), "--feature-type", "logmel", "--layer", "3", "--out", km],
            "logmel has no weig",
        ),
        (["kmeans", "--feature-type", "logmel", "--out", km], "give DATA, the folder of"),
        (
            ["quantize", str(data), "--kmeans", str(data / "none")],
            "none does not exist. Make it with `resynth k",
        ),
        (
            ["quantize", str(data / "none"), "--kmeans", km],
            "none does not exist. Make it with `resynth man",
        ),
        (["quantize", str(data), "--kmeans", km, "--split", "dev"], "dev.tsv does not exist"),
        (["quantize", str(data), "--kmeans", km, "--shard", "3/2"], "--shard: found '3/2'"),
        (
            ["quantize", str(data), "--kmeans", km, "--device", "cuda:77"],
            "--device cuda:77 cannot be used here",
        ),
        (
            ["quantize", str(data), "--kmeans", km, "--feature-type", "cpc"],
            "was made from logmel features",
        ),
        (
            ["quantize", str(data), "--kmeans", km, "--batch-seconds", "-1"],
            "--batch-seconds is -1.0, expected",
        ),
    ]
    for arguments, message in cases:
        capsys.readouterr()
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error, (arguments, error)


def test_a_k_means_of_another_layer_or_checkpoint_is_refused(data, capsys):
    options = _checkpoint("hubert", data)
    km = str(data / "km.safetensors")
    fit = [
        "kmeans",
        str(data),
        "--feature-type",
        "hubert",
        *options,
        "--num-clusters",
        "8",
        "--out",
        km,
    ]
    assert main(fit) == 0
    assert main(["quantize", str(data), "--kmeans", km, *options[:2], "--layer", "1"]) == 2
    assert "was made from layer 2, the encoder has 1" in capsys.readouterr().err
    other = str(save_hubert(data / "other.pt", "dict"))
    assert main(["quantize", str(data), "--kmeans", km, "--content-checkpoint", other]) == 2
    assert "was made from checkpoint_hash" in capsys.readouterr().err
    assert not (data / "train.units").exists()


def test_centroids_of_elsewhere(data, capsys):
    """The documented way from a pickle that one trusts."""
    centroids = np.random.default_rng(0).normal(-5, 3, (6, 80))
    np.save(data / "km.npy", centroids)
    centroids = ["--centroids", str(data / "km.npy")]
    assert _fit(data, *centroids) == 2 and "not both" in capsys.readouterr().err
    km = str(data / "km.safetensors")
    assert main(["kmeans", *centroids, "--feature-type", "logmel", "--out", km]) == 0
    assert main(["quantize", str(data), "--kmeans", str(data / "km.safetensors")]) == 0
    assert read_json(data / "units.json")["num_clusters"] == 6


def test_units_of_another_k_means_are_noted(data, capsys):
    assert _fit(data) == 0
    assert main(["quantize", str(data), "--kmeans", str(data / "km.safetensors")]) == 0
    assert _fit(data, "--seed", "5") == 0
    capsys.readouterr()
    assert (
        main(["quantize", str(data), "--kmeans", str(data / "km.safetensors"), "--split", "test"])
        == 0
    )
    assert "note: train.units was made by another encoder or k-means" in capsys.readouterr().out
