"""The Vocos unit vocoder through the commands that the HiFi-GAN one goes through."""

import json

import numpy as np
import pytest
import soundfile
import torch
from small_corpus import TINY_MODEL, run, train_arguments

from fairseq_resynth.bundle import save_bundle
from fairseq_resynth.checkpoints import load_unit_generator, read_checkpoint
from fairseq_resynth.cli.main import main
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.models.architectures import build_vocoder
from fairseq_resynth.models.unit_vocos import UnitVocosConfig
from fairseq_resynth.modules.vocos import VocosGenerator
from fairseq_resynth.resynthesizer import Resynthesizer


def arguments(data, save_dir, model, *extra):
    """Arguments of fairseq-train with another model than the tiny HiFi-GAN."""
    words = train_arguments(data, save_dir, *extra)
    start = words.index(TINY_MODEL[0])
    return [*words[:start], *model.split(), *words[start + len(TINY_MODEL) :]]


@pytest.fixture(scope="module")
def checkpoint(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocos")
    model = "--arch unit_vocos_small --num-layers 2 --frame-hop 160"
    extra = ("--max-update", 3, "--store-ema", "--disable-validation")
    run("fairseq-train", *arguments(tiny_data, folder, model, *extra))
    return folder / "checkpoint_last.pt"


def test_checkpoint_has_the_sizes_asked_for_and_those_of_the_preset(checkpoint):
    generator, streams, cfg = load_unit_generator(checkpoint)
    assert isinstance(cfg, UnitVocosConfig) and isinstance(generator.generator, VocosGenerator)
    assert (cfg.num_layers, cfg.frame_hop, cfg.dim, cfg.embedding_dim) == (2, 160, 256, 64)
    assert generator.generator.hop == 160 and streams.unit_hop == 320
    assert all(name.startswith("unit_generator.") for name in read_checkpoint(checkpoint)["model"])
    averaged = load_unit_generator(checkpoint, ema=True)[0]
    pairs = zip(generator.parameters(), averaged.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_checkpoint_bundle_and_generate_speak_alike(tiny_data, checkpoint, tmp_path, capsys):
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    assert main(["export", str(checkpoint), "--outdir", str(bundle), "--f0", "missing.pt"]) == 2
    system = Resynthesizer.from_checkpoint(checkpoint)
    save_bundle(bundle, system.bundle)
    assert json.loads((bundle / "config.json").read_text())["arch"] == "unit_vocos"
    options = ["--input", str(tiny_data), "--subtype", "FLOAT"]
    for path, folder in ((checkpoint, "one"), (bundle, "two")):
        words = ["synthesize", "--path", str(path), *options, "--outdir", str(out / folder)]
        assert main(words) == 0
    plugin = ["--user-dir", train_arguments(tiny_data, out)[2], "--task", "unit_resynthesis"]
    generate = [
        "--cpu",
        "--gen-subset",
        "test",
        "--path",
        checkpoint,
        "--results-path",
        out / "gen",
    ]
    run(
        "fairseq-generate",
        tiny_data,
        *plugin,
        *generate,
        "--batch-size",
        3,
        "--wav-format",
        "FLOAT",
    )
    for index in range(3):
        wavs = [
            soundfile.read(out / folder / f"test_{index}.wav", dtype="float32")[0]
            for folder in ("one", "two", "gen")
        ]
        assert len(wavs[0]) > 12000 and np.abs(wavs[0]).max() > 0
        np.testing.assert_array_equal(wavs[0], wavs[1])
        np.testing.assert_allclose(wavs[0], wavs[2], atol=1e-5)


def test_code_hifigan_is_refused(checkpoint, tmp_path, capsys):
    words = ["export", str(checkpoint), "--to", "code-hifigan", "--outdir", str(tmp_path / "out")]
    assert main(words) == 2
    assert "the vocoder is a unit_vocos" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_frames_that_do_not_divide_the_hop():
    streams = Streams(320, 10)
    with pytest.raises(ValueError, match="unit_hop is 320 samples.*96"):
        build_vocoder(UnitVocosConfig(dim=16, frame_hop=96), streams)
