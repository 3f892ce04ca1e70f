"""The trainings and fairseq-generate through their own command lines, on a tiny model."""

import json

import pytest
import soundfile
import torch
from small_corpus import PLUGIN, REPOSITORY, run, train_arguments, write_data
from tensorboard_events import read_events

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.inference.bundle import load_bundle, save_bundle
from fairseq_resynth.inference.checkpoints import EXPECTED, build_bundle, load_unit_generator
from fairseq_resynth.resynthesizer import Resynthesizer


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """A checkpoint after three updates, trained with averaged weights and TensorBoard."""
    folder = tmp_path_factory.mktemp("trained")
    extra = ["--max-update", 3, "--store-ema", "--eval-audio", 3]
    extra += ["--tensorboard-logdir", folder / "tensorboard"]
    run("fairseq-train", *train_arguments(tiny_data, folder / "checkpoints", *extra))
    return folder


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained / "checkpoints" / "checkpoint_last.pt"


def test_tensorboard_shows_real_beside_generated(trained):
    tags = read_events(trained / "tensorboard" / "valid_utterances")
    for index in range(3):
        for kind in ("real", "generated"):
            assert f"valid_{index}/{kind}" in tags
            assert f"valid_{index}/{kind}_spectrogram_f0" in tags
    assert read_events(trained / "tensorboard" / "train_inner") | read_events(
        trained / "tensorboard" / "train"
    ) >= {"mel", "adv_g", "fm", "loss_d", "gnorm_d"}


def test_averaged_weights_are_another_model(checkpoint):
    plain, averaged = (load_unit_generator(checkpoint, ema)[0] for ema in (False, True))
    pairs = zip(plain.parameters(), averaged.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_fairseq_generate_writes_what_the_decoder_gives(tiny_data, checkpoint, tmp_path):
    run(
        "fairseq-generate", tiny_data, "--user-dir", PLUGIN, "--task", "unit_resynthesis", "--path",
        checkpoint, "--gen-subset", "test", "--results-path", tmp_path / "out", "--cpu",
        "--batch-size", 3,
    )  # fmt: skip
    assert main(
        ["synthesize", "--checkpoint", str(checkpoint), "--input", str(tiny_data), "--outdir",
         str(tmp_path / "own")]
    ) == 0  # fmt: skip
    for name in ("test_0", "test_1", "test_2"):
        one, rate = soundfile.read(tmp_path / "out" / f"{name}.wav", dtype="int16")
        other, _ = soundfile.read(tmp_path / "own" / f"{name}.wav", dtype="int16")
        assert rate == 16000 and abs(one.astype(int) - other).max() <= 1
    assert len(one) == 12800


def test_hydra_trains_by_a_configuration(tiny_data, tmp_path):
    """One update by fairseq-hydra-train; tests/examples/test_configs.py composes every file."""
    run(
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "configs", "--config-name",
        "paper_unit_hifigan", f"task.data={tiny_data}", "common.cpu=true",
        "dataset.batch_size=2", "dataset.num_workers=0", "optimization.max_update=1",
        f"checkpoint.save_dir={tmp_path}", "common.tensorboard_logdir=null",
        "+model.upsample_initial_channel=32", "+criterion.discriminator_width=0.0625",
        "+task.segment_size=2560", cwd=tmp_path,
    )  # fmt: skip
    state = load_checkpoint(tmp_path / "checkpoint_last.pt", EXPECTED)
    optimizer = state["cfg"]["optimizer"]
    assert optimizer["adam_betas"] == "(0.8,0.99)" and optimizer["weight_decay"] == 0.01
    assert state["cfg"]["optimization"]["lr"] == [0.0002]
    assert state["cfg"]["lr_scheduler"]["lr_shrink"] == 0.999


def test_hydra_takes_the_small_models_sizes(tiny_data, tmp_path):
    run(
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "configs", "--config-name",
        "paper_unit_hifigan", "model._name=unit_vocos_small", f"task.data={tiny_data}",
        "common.cpu=true", "dataset.batch_size=2",
        "dataset.num_workers=0", "optimization.max_update=1", f"checkpoint.save_dir={tmp_path}",
        "common.tensorboard_logdir=null", "+criterion.discriminator_width=0.0625",
        "+task.segment_size=2560", "+model.num_layers=1", "dataset.disable_validation=true",
        cwd=tmp_path,
    )  # fmt: skip
    generator, _, cfg = load_unit_generator(tmp_path / "checkpoint_last.pt")
    assert (cfg.dim, cfg.embedding_dim, cfg.num_layers) == (256, 64, 1)
    assert len(generator.generator.blocks) == 1 and generator.generator.embed.out_channels == 256


def test_conversion_renders_every_other_voice(tiny_data, checkpoint, tmp_path, capsys):
    arguments = ["synthesize", "--checkpoint", str(checkpoint), "--input", str(tiny_data), "--outdir",
                 str(tmp_path), "--vc", "--json", "--with-reference", "--subtype", "FLOAT"]  # fmt: skip
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["written"] == 3 and summary["reused"] == 0
    written = {path.name for path in tmp_path.glob("*.wav")}
    assert {name for name in written if "reference" not in name} == {
        "test_0_boris.wav", "test_1_anna.wav", "test_2_boris.wav",
    }  # fmt: skip
    assert soundfile.info(tmp_path / "test_0_boris.wav").subtype == "FLOAT"
    assert (tmp_path / "test_0_boris_reference.wav").is_file()
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 3


def test_files_of_units(checkpoint, tmp_path, capsys):
    """GSLM's lines, dict lines and plain lines with codes and speakers in files of the same name."""
    units = "1 2 3 4 5 6 7 8"
    (tmp_path / "codes.txt").write_text(
        f"first|{units}\n{{'audio': 'x/second.wav', 'hubert': '{units}', 'duration': 0.16}}\n{units}\n"
    )
    (tmp_path / "codes.f0").write_text("1 2\n3 4\n0 1\n")
    (tmp_path / "codes.speaker").write_text("anna\nboris\nanna\n")
    arguments = ["synthesize", "--checkpoint", str(checkpoint), "--input", str(tmp_path / "codes.txt"),
                 "--outdir", str(tmp_path / "out")]  # fmt: skip
    assert main(arguments) == 0
    for name in ("first", "x/second", "line_3"):
        assert soundfile.info(tmp_path / "out" / f"{name}.wav").frames == 8 * 320
    assert main([*arguments, "--target", "zoe"]) == 2
    assert "unknown speaker 'zoe'; the model has anna, boris." in capsys.readouterr().err
    (tmp_path / "codes.f0").unlink()
    assert main(arguments) == 2
    assert "the model has a pitch stream" in capsys.readouterr().err
    (tmp_path / "codes.txt").write_text("first|1 2 3\nfirst|__import__('os')\n")
    assert main(arguments) == 2
    assert "codes.txt:2: expected integers" in capsys.readouterr().err


def test_bundle_speaks_as_the_checkpoint(checkpoint, tmp_path):
    identity = save_bundle(tmp_path / "bundle", build_bundle(checkpoint))
    assert load_bundle(tmp_path / "bundle").identity == identity
    units, codes = torch.arange(8).numpy()[None], torch.zeros(1, 2, dtype=int).numpy()
    one = Resynthesizer.from_checkpoint(checkpoint).decode(units, codes, "anna")
    other = Resynthesizer.from_pretrained(tmp_path / "bundle").decode(units, codes, "anna")
    assert one.shape == (1, 1, 8 * 320)
    assert abs(one - other).max() < 1e-6
    another = Resynthesizer.from_checkpoint(checkpoint).decode(units, codes, "boris")
    assert abs(one - another).max() > 5e-6  # after three updates voices differ little
    weights = tmp_path / "bundle" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="does not fit the bundle's config.json"):
        load_bundle(tmp_path / "bundle")


def test_half_a_bundle_speaks_nearly_alike(checkpoint, tmp_path, capsys):
    bundle = build_bundle(checkpoint)
    whole = save_bundle(tmp_path / "whole", bundle)
    assert save_bundle(tmp_path / "half", bundle, half=True) != whole
    sizes = [
        (tmp_path / name / "generator.safetensors").stat().st_size for name in ("whole", "half")
    ]
    assert sizes[1] < 0.55 * sizes[0]
    units, codes = torch.arange(8).numpy()[None], torch.zeros(1, 2, dtype=int).numpy()
    one, other = (
        Resynthesizer.from_pretrained(tmp_path / name).decode(units, codes, "anna")
        for name in ("whole", "half")
    )
    assert 0 < abs(one - other).max() < 0.01 * abs(one).max()
    words = ["export", str(tmp_path / "whole"), "--half", "--to", "onnx", "--outdir", "out"]
    assert main(words) == 2 and "--half is for bundles" in capsys.readouterr().err


def test_decode_refuses(checkpoint):
    resynthesizer = Resynthesizer.from_checkpoint(checkpoint)
    units, codes = torch.arange(8).numpy()[None], torch.zeros(1, 2, dtype=int).numpy()
    with pytest.raises(ValueError, match="give a speaker; the model has anna, boris"):
        resynthesizer.decode(units, codes)
    with pytest.raises(ValueError, match="units: found values from 3 to 10, the model has 0 to 9"):
        resynthesizer.decode(units + 3, codes, "anna")
    with pytest.raises(ValueError, match="give the k-means"):
        resynthesizer.encode(torch.zeros(16000).numpy())


def test_foreign_checkpoints(tmp_path, checkpoint):
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(ValueError, match="text.pt"):
        load_unit_generator(tmp_path / "text.pt")
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.pt is not readable as a checkpoint of fairseq-train"):
        load_unit_generator(tmp_path / "cut.pt")
    with pytest.raises(FileNotFoundError, match="nothing.pt does not exist"):
        load_unit_generator(tmp_path / "nothing.pt")
    torch.save({"generator": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no fairseq model"):
        load_unit_generator(tmp_path / "other.pt")


class Hostile:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"model": Hostile(tmp_path / "ran")}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="hostile.pt holds .* nothing in it was run"):
        load_unit_generator(tmp_path / "hostile.pt")
    assert not (tmp_path / "ran").exists()


def test_units_alone_at_hop_160(tmp_path):
    """A directory without .f0 and .speaker trains a model of units alone."""
    data = write_data(
        tmp_path / "data",
        {"train": [8000, 9600], "valid": [8000]},
        160,
        num_f0_codes=0,
        speakers=(),
    )
    arguments = train_arguments(data, tmp_path / "checkpoints", "--max-update", 1)
    run("fairseq-train", *arguments)
    generator, streams, _ = load_unit_generator(tmp_path / "checkpoints" / "checkpoint_last.pt")
    assert streams.unit_hop == 160 and generator.speaker_embedding is None
    assert generator(torch.zeros(1, 7, dtype=int)).shape == (1, 1, 7 * 160)
