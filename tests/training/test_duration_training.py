"""--duration-predictor in training, checkpoints, bundles and decoding."""

import numpy as np
import pytest
import torch
from small_corpus import write_data
from test_gan_step import batches, build_trainer

from fairseq_resynth.inference.bundle import load_bundle, save_bundle
from fairseq_resynth.inference.checkpoints import load_unit_generator
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.resynthesizer import Resynthesizer

OPTIONS = ("--duration-predictor", "--duration-hidden-dim", "16", "--duration-dropout", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Each unit lasts a number of frames of its own, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("durations") / "data"
    write_data(folder, {"train": [25600] * 4, "valid": [12800]}, num_f0_codes=0, speakers=())
    rng = np.random.default_rng(0)
    for split, rows in (("train", 4), ("valid", 1)):
        lines = (folder / f"{split}.units").read_text().splitlines()
        written = []
        for row in range(rows):
            units = []
            while len(units) < len(lines[row].split()):
                unit = int(rng.integers(4))
                units += [unit] * (unit + 1) if not units or units[-1] != unit else []
            written.append(" ".join(map(str, units[: len(lines[row].split())])))
        (folder / f"{split}.units").write_text("\n".join(written) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("durations") / "save"
    trainer = build_trainer(data, folder, *OPTIONS, "--lr", "3e-3", "--segment-size", "5120")
    logs = [trainer.train_step([sample]) for sample in batches(trainer, 30)]
    trainer.consolidate_optimizer()
    folder.mkdir()
    trainer.save_checkpoint(str(folder / "checkpoint.pt"), {})
    return folder / "checkpoint.pt", logs


def test_the_loss_falls_and_is_part_of_the_sum(trained):
    _, logs = trained
    assert np.mean([log["duration"] for log in logs[-5:]]) < 0.3 * logs[0]["duration"]
    for log in logs[:3]:
        expected = 45 * log["mel"] + log["adv_g"] + 2 * log["fm"] + log["duration"]
        assert log["loss"] == pytest.approx(expected, rel=1e-3)


def test_learned_durations_through_checkpoint_and_bundle(trained, tmp_path):
    generator, streams, _ = load_unit_generator(trained[0])
    decoder = UnitDecoder(generator, streams)
    rows = [np.array([0, 3, 1, 2, 3, 0, 2]), np.array([2, 1, 3])]
    expanded = decoder.expand(rows)
    assert abs(len(expanded[0]) - int((rows[0] + 1).sum())) <= 4
    for row, alone in zip(expanded, [decoder.expand([row])[0] for row in rows], strict=True):
        assert row.tolist() == alone.tolist()
    assert len(decoder.expand(rows, rate=3.0)[0]) < len(expanded[0])
    assert decoder.expand([expanded[0]])[0].tolist() == expanded[0].tolist()  # repeats count as one

    system = Resynthesizer.from_checkpoint(trained[0])
    said = system.speak(rows)
    assert [len(wav) for wav in said] == [len(row) * 320 for row in expanded]
    save_bundle(tmp_path, system.bundle)
    assert load_bundle(tmp_path).model.duration_predictor
    again = Resynthesizer.from_pretrained(tmp_path).speak(rows)
    for one, two in zip(said, again, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_without_a_predictor(data, tmp_path):
    trainer = build_trainer(data, tmp_path)
    sample = next(batches(trainer, 1))
    assert "duration" not in trainer.train_step([sample])
    generator = trainer.model.unit_generator
    with pytest.raises(ValueError, match="train it with --duration-predictor"):
        UnitDecoder(generator, trainer.task.streams).expand([np.array([1, 2])])


def test_weight_zero_leaves_the_predictor_alone(data, tmp_path):
    trainer = build_trainer(data, tmp_path, *OPTIONS, "--duration-weight", "0")
    before = trainer.model.unit_generator.duration_predictor.proj.weight.clone()
    sample = next(batches(trainer, 1))
    trainer.task.train_step(sample, trainer.model, trainer.criterion, trainer.optimizer, 0)
    predictor = trainer.model.unit_generator.duration_predictor
    assert not predictor.proj.weight.grad.any()
    assert torch.equal(before, predictor.proj.weight)
