"""The content VQ-VAE: trained in fairseq, its units, and the bundle that speaks them."""

import json

import numpy as np
import pytest
import soundfile
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from small_corpus import ADAM, PLUGIN, TINY_CRITERION, TINY_MODEL, fairseq_train, write_data

from fairseq_resynth.cli.main import main
from fairseq_resynth.encoders.content import CHUNK, VqvaeUnits
from fairseq_resynth.inference.checkpoints import load_content_vqvae
from fairseq_resynth.modules.quantizers import ContentVqvae
from fairseq_resynth.resynthesizer import Resynthesizer
from fairseq_resynth.tasks import unit_resynthesis, validation

ARGUMENTS = [
    "--user-dir", str(PLUGIN), "--task", "content_quantization", *TINY_MODEL, *TINY_CRITERION,
    *ADAM, "--encoder-width", "8", "--num-codes", "16", "--cpu", "--batch-size", "3",
    "--segment-size", "3200", "--num-workers", "0", "--log-format", "json", "--seed", "3",
    "--eval-audio", "0",
]  # fmt: skip
ARGUMENTS[ARGUMENTS.index("unit_hifigan")] = "content_vqvae"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data directory without units; and one of them shorter than a crop."""
    folder = tmp_path_factory.mktemp("vqvae") / "data"
    write_data(folder, {"train": [16000, 8000, 20000, 2500, 9000, 12345], "valid": [9000, 8000]})
    for name in ("units.json", "f0_codes.json", "train.units", "valid.units"):
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vqvae") / "save"
    arguments = [data, *ARGUMENTS, "--save-dir", folder]
    fairseq_train(*arguments, "--max-update", "4", "--no-epoch-checkpoints")
    first = torch.load(folder / "checkpoint_last.pt", weights_only=True)
    # … and it goes on from there with the codebook that it has.
    done = fairseq_train(*arguments, "--max-update", "5", "--no-epoch-checkpoints")
    return folder / "checkpoint_last.pt", first, done.stderr + done.stdout


def test_training_moves_codebook_encoder_and_decoder(trained):
    path, first, log = trained
    last = torch.load(path, weights_only=True)["model"]
    assert int(first["model"]["content_vqvae.quantizer.num_steps"]) == 4
    assert int(last["content_vqvae.quantizer.num_steps"]) == 5
    for name in ("content_vqvae.quantizer.codebook", "content_vqvae.encoder.out.weight"):
        assert not torch.equal(first["model"][name], last[name])
        difference = (first["model"][name] - last[name]).abs().max()
        assert difference < 0.5 * first["model"][name].abs().max()  # not from random values again
    assert '"valid_commitment"' in log and '"train_commitment"' in log


def test_units_and_bundle(trained, data, tmp_path):
    path = str(trained[0])
    options = ["--feature-type", "vqvae", "--content-checkpoint", path]
    assert main(["quantize", str(data), *options]) == 0
    description = json.loads((data / "units.json").read_text())
    assert (description["num_clusters"], description["unit_hop"]) == (16, 160)
    rows = (data / "train.units").read_text().splitlines()
    assert [len(row.split()) for row in rows] == [100, 50, 125, 15, 56, 77]
    encoder = VqvaeUnits(load_content_vqvae(path))
    wav, _ = soundfile.read(data / "wav" / "train_1.wav", dtype="float32")
    assert encoder.encode(wav).tolist() == [int(unit) for unit in rows[1].split()]

    assert main(["export", path, "--outdir", str(tmp_path / "bundle")]) == 0
    system = Resynthesizer.from_pretrained(tmp_path / "bundle")
    speech = system.encode(wav)
    assert speech.units.tolist() == encoder.encode(wav).tolist()
    content = load_content_vqvae(tmp_path / "bundle")
    quantized = content.quantizer.decode(torch.from_numpy(speech.units)[None])
    with torch.no_grad():
        expected = system.bundle.generator.generator(quantized).numpy()
    np.testing.assert_allclose(system.decode(speech.units[None]), expected, atol=1e-6)


def test_the_units_of_another_vqvae_are_refused(trained, data):
    from fairseq_resynth.data.streams import read_streams

    main(
        ["quantize", str(data), "--feature-type", "vqvae", "--content-checkpoint", str(trained[0])]
    )
    streams = read_streams(data, "units")
    path = data / "units.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"vqvae_hash": "another"}))
    with pytest.raises(ValueError, match="vqvae_hash is another, the model was trained with"):
        streams.check_same_encoders(data)
    path.write_text(text)


def test_long_files_in_chunks_give_what_the_whole_gives():
    torch.manual_seed(0)
    vqvae = ContentVqvae(16, 8, 4).eval()
    vqvae.quantizer.codebook.normal_()
    wav = torch.randn((CHUNK + 350) * 160) * 0.1
    whole = vqvae.encode(wav[None, None])[0].numpy()
    assert np.array_equal(VqvaeUnits(vqvae).encode(wav), whole)
    with pytest.raises(ValueError, match="expected 160 .one frame of the content encoder. or more"):
        VqvaeUnits(vqvae).encode(wav[:100])


@pytest.mark.parametrize(
    "options,message",
    [
        ([], "takes --content-checkpoint"),
        (["--content-checkpoint", "CKPT", "--kmeans", "x"], "no --kmeans"),
        (["--content-checkpoint", "nowhere.pt"], "nowhere.pt does not exist"),
    ],
)
def test_wrong_options(options, message, trained, data, capsys):
    options = [str(trained[0]) if option == "CKPT" else option for option in options]
    assert main(["quantize", str(data), "--feature-type", "vqvae", *options]) == 2
    assert message in capsys.readouterr().err


def build_trainer(data, *extra):
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(parser, [str(data), *ARGUMENTS, *extra])
    )
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.lr_step(0)
    return trainer


def test_compile_compiles_the_decoder_and_the_discriminators(data, monkeypatch):
    """From the second batch of one shape on."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net, **_: compiled.append(net))
    monkeypatch.setattr(torch, "compile", lambda loss, **_: loss)
    monkeypatch.setattr(unit_resynthesis, "check_compiler", lambda *_: None)
    trainer = build_trainer(data, "--compile")
    sample = next(trainer.get_train_iterator(1).next_epoch_itr(shuffle=False))
    trainer.train_step([sample])
    assert compiled == []
    trainer.train_step([sample])
    criterion = trainer.criterion
    networks = [criterion.discriminators, criterion.mel_distance, trainer.model.generator]
    assert compiled == networks


def test_a_dummy_batch_does_not_move_the_codebook(data):
    trainer = build_trainer(data)
    sample = next(trainer.get_train_iterator(1).next_epoch_itr(shuffle=False))
    quantizer = trainer.model.content_vqvae.quantizer
    for ignore in (False, True):
        before = quantizer.codebook.clone()
        step = (sample, trainer.model, trainer.criterion, trainer.optimizer, 0, ignore)
        trainer.zero_grad()  # as the trainer does
        trainer.task.train_step(*step)
        assert torch.equal(before, quantizer.codebook) == ignore


def test_f0_of_the_same_crops_is_extracted_once(data, monkeypatch):
    """The crops of the valid split are the same at every validation."""
    extracted = []

    def extract(wav, **settings):
        extracted.append(len(wav))
        return np.zeros(-(-len(wav) // 80), dtype=np.float32)

    monkeypatch.setattr(validation, "extract_f0", extract)
    trainer = build_trainer(data, "--eval-audio", "2")
    trainer.task.load_dataset("valid")
    dataset = trainer.task.dataset("valid")
    sample = dataset.collater([dataset[0], dataset[1]])
    for _ in range(3):
        trainer.task.begin_valid_epoch(1, trainer.model)
        trainer.task.valid_step(sample, trainer.model, trainer.criterion)
    # two recordings, and what is generated for them at each of three validations
    assert len(extracted) == 2 + 3 * 2
