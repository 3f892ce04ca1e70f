"""Folders of bundles: nothing of an earlier bundle stays, and damaged ones are refused in a sentence."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from small_corpus import REPOSITORY
from tiny_bundles import write_bundle
from tiny_voices import save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.inference.bundle import load_bundle, model_card, save_bundle
from fairseq_resynth.inference.checkpoints import load_content_vqvae, load_f0_quantizer
from fairseq_resynth.modules.quantizers import ContentVqvaeSizes, F0VqvaeSizes


def test_a_bundle_over_an_older_one_keeps_nothing_of_it(tmp_path):
    save_tiny_bundle(tmp_path / "bundle", False)
    assert load_bundle(tmp_path / "bundle").kmeans is not None
    write_bundle("units", tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").kmeans is None
    assert not (tmp_path / "bundle" / "speakers.json").exists()


def test_whoever_may_read_new_files_may_read_a_bundle(tmp_path):
    """Also its weights: safetensors' own writer makes files that only their owner reads, and leaves temporary
    ones if it is killed."""
    save_tiny_bundle(tmp_path / "bundle", False)
    (tmp_path / "new").touch()
    found = {path.name: path.stat().st_mode for path in (tmp_path / "bundle").iterdir()}
    assert {"generator.safetensors", "kmeans.safetensors"} <= set(found)
    assert found == dict.fromkeys(found, (tmp_path / "new").stat().st_mode)


def test_the_context_model_stays_only_beside_the_same_weights(tmp_path):
    """`resynth fit-codec` wrote it for the units of the bundle that was in the folder."""
    folder = tmp_path / "bundle"
    save_tiny_bundle(folder, False)
    (folder / "entropy.safetensors").write_bytes(b"fitted")
    save_bundle(folder, load_bundle(folder))
    assert (folder / "entropy.safetensors").exists()
    write_bundle("units", folder)
    assert not (folder / "entropy.safetensors").exists()


def test_the_context_model_goes_with_the_bundle_that_was_loaded(tmp_path, monkeypatch):
    """From an archive too, whose name is no folder that holds the file."""
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    save_tiny_bundle(tmp_path / "bundle", False)
    (tmp_path / "bundle" / "entropy.safetensors").write_bytes(b"fitted")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "bundle")
    arguments = ["--to", "hub-folder", "--outdir", str(tmp_path / "out")]
    assert main(["export", archive, *arguments]) == 0
    assert (tmp_path / "out" / "entropy.safetensors").read_bytes() == b"fitted"


def test_the_model_card_has_the_tag_of_its_generator():
    card = model_card(load_bundle(REPOSITORY / "examples" / "asterisk" / "bundle"))
    assert "tags: [speech, vocoder, unit-source-filter, voice-conversion, textless]" in card


def change(config, *keys, value=None):
    *path, last = keys
    for key in path:
        config = config[key]
    if value is None:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["format"], "something else", "expected 'fairseq_resynth bundle' version 1"),
        (["version"], 2, "version 2, expected"),
        (["streams"], None, "config.json is not readable as the configuration of a bundle"),
        (
            ["streams", "unit_hop"],
            None,
            "config.json is not readable as the configuration of a bundle",
        ),
        (["model", "layers"], 3, "config.json is not readable as the configuration of a bundle"),
        (["model", "embedding_dim"], 9, "generator.safetensors does not fit"),
        (["arch"], "unit_wavenet", "the unit vocoder 'unit_wavenet': expected"),
    ],
)
def test_a_damaged_configuration_is_one_sentence(tmp_path, keys, value, message):
    write_bundle("units", tmp_path / "bundle")
    path = tmp_path / "bundle" / "config.json"
    config = json.loads(path.read_text())
    change(config, *keys, value=value)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_bundle(tmp_path / "bundle")


def test_damaged_and_missing_weights_are_named(tmp_path):
    write_bundle("units", tmp_path / "bundle")
    weights = tmp_path / "bundle" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="generator.safetensors does not fit"):
        load_bundle(tmp_path / "bundle")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="generator.safetensors is missing"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda text: "[1]"),
        ("config.json", lambda text: text.replace('"unit_hop": 320', '"unit_hop": [320]')),
        ("config.json", lambda text: text.replace('"bob"', "7")),
        ("config.json", lambda text: text.replace('"embedding_dim": 8', '"embedding_dim": "x"')),
        ("generator.safetensors", lambda text: text.replace("conv_pre.bias", "conv_pre.bios")),
    ],
)
def test_a_damaged_bundle_is_one_line(name, change, tmp_path):
    write_bundle("units, speaker", tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    path.write_text(change(path.read_text("latin-1")), "latin-1")
    with pytest.raises(ValueError, match=name) as raised:
        load_bundle(tmp_path / "bundle")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sizes", "load"),
    [
        ("f0_vqvae", F0VqvaeSizes(), load_f0_quantizer),
        ("content_vqvae", ContentVqvaeSizes(), load_content_vqvae),
    ],
)
@pytest.mark.parametrize("change", [[], "x", {"num_codes": "x"}, {"num_codes": None}])
def test_checkpoints_of_quantizers_with_damaged_settings(tmp_path, name, sizes, load, change):
    model = {"_name": name, **asdict(sizes)}
    config = {"model": {**model, **change}} if isinstance(change, dict) else change
    torch.save({"cfg": config or [1], "model": {}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt") as raised:
        load(tmp_path / "a.pt")
    assert len(str(raised.value).splitlines()) == 1
