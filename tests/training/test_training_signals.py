"""The criterion's discriminators, mel distance and adversarial loss through fairseq-train."""

import pytest
import torch
from small_corpus import fairseq_train, train_arguments
from test_gan_step import batches, build_trainer
from test_resume import assert_same

from fairseq_resynth.modules import losses


def train(data, folder, *extra, check=True):
    return fairseq_train(*train_arguments(data, folder, *extra), check=check)


def checkpoint(folder):
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)


@pytest.mark.parametrize("names", ["mrd", "msstft", "mpd,mbstft", "mrd,mpd"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_moves_both_networks(names, precision, tiny_data, tmp_path):
    options = ["--discriminators", names, "--adversarial-loss", "hinge", "--mel-loss", "multi"]
    trainer = build_trainer(tiny_data, tmp_path, *options, "--autocast", precision)
    nets = (trainer.model, trainer.criterion.discriminators)
    before = [[p.clone() for p in net.parameters()] for net in nets]
    logs = trainer.train_step([next(batches(trainer, 1))])
    assert all(
        torch.isfinite(torch.tensor(logs[name])) for name in ("mel", "adv_g", "fm", "loss_d")
    )
    for net, old in zip(nets, before, strict=True):
        moved = [not torch.equal(*pair) for pair in zip(net.parameters(), old, strict=True)]
        assert sum(moved) > 0.9 * len(moved)


def test_hinge_and_multi_mel_are_what_the_criterion_sums(tiny_data, tmp_path):
    options = ["--adversarial-loss", "hinge", "--mel-loss", "multi", "--discriminators", "mrd"]
    trainer = build_trainer(tiny_data, tmp_path, *options)
    criterion, sample = trainer.criterion, next(batches(trainer, 1))
    real = sample["target"]
    fake = 0.1 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss_d = criterion.discriminator_loss(real, fake)
        loss, terms = criterion.generator_loss(real, fake)
        real_scores, real_maps = criterion.discriminators(real)
        fake_scores, fake_maps = criterion.discriminators(fake)
    torch.testing.assert_close(loss_d, losses.hinge_discriminator_loss(real_scores, fake_scores))
    adversarial = losses.hinge_generator_loss(fake_scores)
    matching = losses.feature_matching_loss(real_maps, fake_maps)
    mel = losses.MelLoss(16000, losses.MEL_SCALES["multi"])(real, fake)
    torch.testing.assert_close(loss, 45 * mel + adversarial + 2 * matching)
    torch.testing.assert_close(terms["mel"], mel)
    # validation stays the paper's distance, whatever is trained on
    with torch.no_grad():
        generated = trainer.model(**sample["net_input"])
        paper = losses.mel_l1(criterion.log_mel(real), criterion.log_mel(generated))
        torch.testing.assert_close(criterion(trainer.model, sample)[2]["mel"] / len(real), paper)


@pytest.mark.parametrize(
    "options,message",
    [
        (["--discriminators", "mpd,mds"], "has 'mds': expected some of mpd, msd, mrd"),
        (["--mel-loss", "double"], "--mel-loss is 'double', expected single or multi"),
        (
            ["--adversarial-loss", "ls"],
            "--adversarial-loss is 'ls', expected least-squares or hinge",
        ),
    ],
)
def test_other_names_are_refused(options, message, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_trainer(tiny_data, tmp_path, *options)


def test_resumed_equals_uninterrupted(tiny_data, tmp_path):
    options = ["--discriminators", "mpd,mrd", "--mel-loss", "multi", "--disable-validation"]
    train(tiny_data, tmp_path / "whole", *options, "--max-update", 4)
    train(tiny_data, tmp_path / "halves", *options, "--max-update", 2)
    train(tiny_data, tmp_path / "halves", *options, "--max-update", 4)
    whole, halves = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "halves")
    for part in ("model", "criterion", "last_optimizer_state"):
        assert_same(whole[part], halves[part], part)
    assert whole["criterion"]["_extra_state"]["discriminators"] == ["mpd", "mrd"]


def test_resuming_with_other_discriminators(tiny_data, tmp_path):
    """Refused with the way out, in which a common family continues and a new one starts at random."""
    train(tiny_data, tmp_path, "--max-update", 1, "--disable-validation")
    before = checkpoint(tmp_path)
    options = ["--discriminators", "mpd,mbstft", "--max-update", 1, "--disable-validation"]
    done = train(tiny_data, tmp_path, *options, check=False)
    assert done.returncode != 0
    assert "trained with --discriminators mpd,msd, now they are mpd,mbstft" in done.stderr
    assert "Add --reset-optimizer" in done.stderr
    train(tiny_data, tmp_path, *options, "--reset-optimizer")
    after = checkpoint(tmp_path)
    kept = [name for name in after["criterion"] if name in before["criterion"] and "." in name]
    assert {name.split(".")[1] for name in kept} == {"periods"}
    assert any(name.startswith("discriminators.bands.") for name in after["criterion"])
    for name in kept:  # one small step from where they were
        torch.testing.assert_close(
            after["criterion"][name], before["criterion"][name], atol=1e-3, rtol=0
        )


def test_checkpoints_from_before_the_option_have_the_papers(tiny_data, tmp_path):
    train(tiny_data, tmp_path, "--max-update", 1, "--disable-validation")
    state = checkpoint(tmp_path)
    del state["criterion"]["_extra_state"]["discriminators"]
    torch.save(state, tmp_path / "checkpoint_last.pt")
    train(tiny_data, tmp_path, "--max-update", 2, "--disable-validation")
    assert checkpoint(tmp_path)["optimizer_history"][-1]["num_updates"] == 2
