"""The light unit vocoders through the commands that the HiFi-GAN one goes through."""

import json
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from small_corpus import TINY_MODEL, fairseq_train, run, train_arguments, write_f0_data

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.bundle import save_bundle
from fairseq_resynth.inference.checkpoints import EXPECTED, load_unit_generator
from fairseq_resynth.inference.decoder import decode_in_chunks
from fairseq_resynth.modules.architectures import (
    UnitSourceFilterSizes,
    UnitVocosSizes,
    build_vocoder,
)
from fairseq_resynth.modules.generators.source_filter import SourceFilterGenerator
from fairseq_resynth.modules.generators.vocos import VocosGenerator
from fairseq_resynth.resynthesizer import Resynthesizer


def arguments(data, save_dir, model, *extra):
    """Arguments of fairseq-train with another model than the tiny HiFi-GAN."""
    words = train_arguments(data, save_dir, *extra)
    start = words.index(TINY_MODEL[0])
    return [*words[:start], *model.split(), *words[start + len(TINY_MODEL) :]]


MODELS = {
    "unit_vocos": ("--num-layers 2 --frame-hop 160", UnitVocosSizes, VocosGenerator),
    "unit_source_filter": ("--num-layers 2", UnitSourceFilterSizes, SourceFilterGenerator),
}


@pytest.fixture(scope="module", params=MODELS)
def arch(request):
    return request.param


RATES = [("unit_hifigan", 640), ("unit_vocos_small", 1280), ("unit_source_filter_small", 200)]


@pytest.mark.slow
@pytest.mark.parametrize("name,unit_hop", RATES)
def test_training_at_other_rates_needs_no_option(name, unit_hop, tmp_path):
    lengths = {"train": [16000, 20480, 32000, 17000], "valid": [16000, 20480]}
    data = write_f0_data(tmp_path / "data", lengths, unit_hop=unit_hop)
    model = f"--arch {name} --num-layers 1 --dim 16 --intermediate-dim 16"
    words = arguments(data, tmp_path / "out", model, "--max-update", 2)
    if name == "unit_hifigan":
        words = train_arguments(data, tmp_path / "out", "--max-update", 2)
    start = words.index("--segment-size")
    fairseq_train(*words[:start], *words[start + 2 :])
    generator, streams = load_unit_generator(tmp_path / "out" / "checkpoint_last.pt")[:2]
    assert streams.unit_hop == unit_hop and unit_hop % generator.generator.hop == 0


@pytest.fixture(scope="module")
def f0_data(tmp_path_factory):
    valid = [16000, 20480, 12800]
    lengths = {"train": [16000, 20480, 32000, 17000, 25600, 30000], "valid": valid, "test": valid}
    return write_f0_data(tmp_path_factory.mktemp("f0_data") / "data", lengths)


@pytest.fixture(scope="module")
def checkpoint(arch, f0_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp(arch)
    model = f"--arch {arch}_small {MODELS[arch][0]}"
    extra = ("--max-update", 3, "--store-ema", "--disable-validation")
    fairseq_train(*arguments(f0_data, folder, model, *extra))
    return folder / "checkpoint_last.pt"


def test_checkpoint_has_the_sizes_asked_for_and_those_of_the_preset(arch, checkpoint):
    generator, streams, cfg = load_unit_generator(checkpoint)
    _, config_class, generator_class = MODELS[arch]
    assert isinstance(cfg, config_class) and isinstance(generator.generator, generator_class)
    assert (cfg.num_layers, cfg.dim, cfg.embedding_dim) == (2, 256, 64)
    assert generator.generator.hop == 160 and streams.unit_hop == 320
    assert all(
        name.startswith("unit_generator.")
        for name in load_checkpoint(checkpoint, EXPECTED)["model"]
    )
    averaged = load_unit_generator(checkpoint, ema=True)[0]
    pairs = zip(generator.parameters(), averaged.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_checkpoint_bundle_and_generate_speak_alike(arch, f0_data, checkpoint, tmp_path, capsys):
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    assert main(["export", str(checkpoint), "--outdir", str(bundle), "--f0", "missing.pt"]) == 2
    system = Resynthesizer.from_checkpoint(checkpoint)
    save_bundle(bundle, system.bundle)
    assert json.loads((bundle / "config.json").read_text())["arch"] == arch
    options = ["--input", str(f0_data), "--subtype", "FLOAT"]
    for option, path, folder in (("--checkpoint", checkpoint, "one"), ("--bundle", bundle, "two")):
        words = ["synthesize", option, str(path), *options, "--outdir", str(out / folder)]
        assert main(words) == 0
    plugin = ["--user-dir", train_arguments(f0_data, out)[2], "--task", "unit_resynthesis"]
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
        f0_data,
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


def test_chunks_are_what_the_whole_is(checkpoint):
    system = Resynthesizer.from_checkpoint(checkpoint)
    rng = np.random.default_rng(0)
    units = rng.integers(system.streams.num_units, size=300)
    codes = rng.integers(system.streams.num_f0_codes, size=75)
    speech = Utterance(units, codes, system.streams.speakers[0])
    whole = system.decode_all([speech])[0]
    for chunk_units in (40, 100):
        pieces = np.concatenate([*decode_in_chunks(system.decoder, speech, chunk_units)])
        np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_code_hifigan_is_refused(arch, checkpoint, tmp_path, capsys):
    words = ["export", str(checkpoint), "--to", "code-hifigan", "--outdir", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"the vocoder is a {arch}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_frames_that_do_not_divide_the_hop():
    streams = StreamSpec(320, 10)
    with pytest.raises(ValueError, match="unit_hop is 320 samples.*96"):
        build_vocoder(UnitVocosSizes(dim=16, frame_hop=96), streams)


def test_the_melody_is_learnt_from_the_recordings_and_logged(f0_data, tmp_path):
    model = "--arch unit_source_filter_small --num-layers 1 --dim 32 --intermediate-dim 32"
    extra = ("--max-update", 30, "--disable-validation", "--log-interval", 1, "--lr", 0.003)
    words = arguments(f0_data, tmp_path, model, *extra, "--discriminator-start", 1000)
    done = fairseq_train(*words)
    log = done.stdout + done.stderr
    losses = [float(value) for value in re.findall(r"[ ,{\"]pitch[=\":, ]+([0-9.]+)", log)]
    assert len(losses) >= 30 and np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_training_without_f0_names_the_command(f0_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(f0_data, data)
    shutil.rmtree(data / "f0")
    words = arguments(data, tmp_path / "save", "--arch unit_source_filter_small", "--max-update", 1)
    done = fairseq_train(*words, check=False)
    assert done.returncode and "resynth f0" in done.stderr + done.stdout
