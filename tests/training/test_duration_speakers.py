"""Predicted durations of each speaker: learned, spoken, and left alone in models from before."""

import numpy as np
import pytest
import torch
from test_duration_training import OPTIONS
from test_gan_step import batches, build_trainer

from fairseq_resynth.conversion.convert import Controls, convert
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.bundle import Bundle, load_bundle, save_bundle
from fairseq_resynth.inference.checkpoints import load_unit_generator
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.inference.synthesis import Job, predict_durations
from fairseq_resynth.models.unit_vocoders import UnitVocoder
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.resynthesizer import Resynthesizer

SIZES = {"embedding_dim": 8, "upsample_initial_channel": 32, "resblock_kernel_sizes": "3"}
SIZES |= {"resblock_dilation_sizes": "1,3", "duration_predictor": True, "duration_hidden_dim": 16}
SIZES |= {"duration_dropout": 0.0}
SPEAKERS = ("anna", "boris")
ROW = np.array([0, 3, 1, 2, 3, 0, 2, 1])


def rows_of(speaker, count, rng):
    """(count, 40) units: unit u lasts u + 1 frames when anna says it, twice as long when boris does."""
    rows = []
    for _ in range(count):
        units = []
        while len(units) < 40:
            unit = int(rng.integers(4))
            frames = (unit + 1) * (1 + speaker)
            units += [unit] * frames if not units or units[-1] != unit else []
        rows.append(units[:40])
    return rows


@pytest.fixture(scope="module")
def bundle():
    """Learns durations alone, by the loss that the task adds to a vocoder's."""
    torch.manual_seed(0)
    streams = StreamSpec(320, 10, speakers=SPEAKERS)
    vocoder = UnitVocoder(build_vocoder(UnitHifiganSizes(**SIZES), streams))
    adam, rng = torch.optim.Adam(vocoder.parameters(), 3e-3), np.random.default_rng(0)
    for _ in range(400):
        units = torch.tensor(rows_of(0, 4, rng) + rows_of(1, 4, rng))
        speaker = torch.tensor([0] * 4 + [1] * 4)
        loss = vocoder.auxiliary_losses({"units": units, "speaker": speaker})["duration"]
        adam.zero_grad()
        loss.backward()
        adam.step()
    generator = vocoder.unit_generator.eval()
    return Bundle(generator, UnitHifiganSizes(**SIZES), streams)


def test_who_was_trained_twice_as_long_is_spoken_twice_as_long(bundle, tmp_path):
    decoder = UnitDecoder(bundle.generator, bundle.streams)
    short, long = (decoder.expand([ROW], speaker=name)[0] for name in SPEAKERS)
    assert len(short) == pytest.approx((ROW + 1).sum(), abs=3)
    assert len(long) == pytest.approx(2 * (ROW + 1).sum(), abs=6)
    together = decoder.expand([ROW, ROW], speaker=["boris", "anna"])
    assert [row.tolist() for row in together] == [long.tolist(), short.tolist()]

    system = Resynthesizer(bundle)
    said = [system.speak([ROW], speaker=name)[0] for name in SPEAKERS]
    assert [len(wav) for wav in said] == [320 * len(short), 320 * len(long)]
    save_bundle(tmp_path, system.bundle)
    assert load_bundle(tmp_path).model.duration_condition == "speaker"
    assert "predicted, depending on the speaker" in (tmp_path / "README.md").read_text()
    again = Resynthesizer.from_pretrained(tmp_path).speak([ROW], speaker="boris")[0]
    np.testing.assert_allclose(again, said[1], atol=1e-6)

    jobs = [Job(name, Utterance(ROW, speaker=name)) for name in SPEAKERS]
    spoken = predict_durations(jobs, decoder, 1.0)
    assert [len(job.speech.units) for job in spoken] == [len(short), len(long)]
    with pytest.raises(ValueError, match="give a speaker; the model has anna, boris"):
        decoder.expand([ROW])


class Units:
    """Makes the same units of any recording."""

    unit_hop, num_units = 320, 10

    def encode(self, wav):
        del wav
        return np.repeat(ROW, 5)


def test_conversion_takes_the_targets_rhythm_or_anothers(bundle):
    system = Resynthesizer(bundle)
    system.encoder, wav = Units(), np.zeros(12800, np.float32)

    def units(target, **controls):
        return len(convert(system, wav, target, "anna", Controls(**controls)).speech.units)

    anna, boris = (units(name, durations="predicted") for name in SPEAKERS)
    assert boris == pytest.approx(2 * anna, rel=0.2) and units("boris") == 5 * len(ROW)
    assert units("anna", duration_speaker="boris") == boris
    assert units("anna", duration_speaker="boris", rate=2.0) == pytest.approx(boris / 2, abs=4)
    with pytest.raises(ValueError, match="unknown speaker 'clara'; the model has anna, boris"):
        units("anna", duration_speaker="clara")
    with pytest.raises(ValueError, match="give one of them"):
        Controls(durations="from=x.wav", duration_speaker="anna")


def train_step(trainer):
    return trainer.train_step([next(batches(trainer, 1))])


def test_training_moves_the_speakers_durations_and_old_runs_go_on(tiny_data, tmp_path):
    options = (*OPTIONS, "--duration-weight", "10", "--segment-size", "10240")
    trainer = build_trainer(tiny_data, tmp_path / "old", *options, "--duration-condition", "none")
    train_step(trainer)
    trainer.consolidate_optimizer()
    (tmp_path / "old").mkdir()
    path = tmp_path / "old" / "checkpoint.pt"
    trainer.save_checkpoint(str(path), {})
    state = torch.load(path, weights_only=True)
    del state["cfg"]["model"]["duration_condition"]  # there was no such option
    torch.save(state, path)

    new = build_trainer(tiny_data, tmp_path / "new", *options)
    voices = new.model.unit_generator.speaker_embedding.weight.clone()
    layer = new.model.unit_generator.duration_predictor.speaker
    assert not layer.weight.any()
    train_step(new)
    assert layer.weight.abs().max() > 0
    assert (new.model.unit_generator.speaker_embedding.weight != voices).any()  # by the vocoder

    again = build_trainer(tiny_data, tmp_path / "again", *options)
    again.load_checkpoint(str(path))
    assert again.get_num_updates() == 1
    assert not again.model.unit_generator.durations_need_speaker
    train_step(again)

    generator, streams, sizes = load_unit_generator(path)
    assert not generator.durations_need_speaker and sizes.duration_condition == "none"
    save_bundle(tmp_path / "bundle", Bundle(generator, sizes, streams))
    assert load_bundle(tmp_path / "bundle").model.duration_condition == "none"


def test_a_model_that_knows_no_speakers_says_so():
    torch.manual_seed(0)
    streams = StreamSpec(320, 10, speakers=SPEAKERS)
    sizes = UnitHifiganSizes(**SIZES, duration_condition="none")
    system = Resynthesizer(Bundle(build_vocoder(sizes, streams).eval(), sizes, streams))
    system.encoder, wav = Units(), np.zeros(12800, np.float32)
    done = convert(system, wav, "boris", "anna", Controls(durations="predicted"))
    assert done.notes == ("the predicted durations are the same for every speaker of this model",)
    with pytest.raises(ValueError, match="--duration-condition speaker"):
        convert(system, wav, "boris", "anna", Controls(duration_speaker="anna"))
    with pytest.raises(
        ValueError, match="--duration-condition is 'voice', expected speaker or none"
    ):
        build_vocoder(UnitHifiganSizes(**SIZES, duration_condition="voice"), streams)
