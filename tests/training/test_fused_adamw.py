"""torch's fused AdamW as fairseq's optimizer: near fairseq's own, and resumed bit for bit."""

import pytest
import torch
from test_gan_step import assert_equal_state, batches, build_trainer


def weights(trainer):
    networks = (trainer.model, trainer.criterion.discriminators)
    return torch.cat([p.detach().flatten() for net in networks for p in net.parameters()])


def test_stays_near_fairseqs_adam_and_resumes(tiny_data, tmp_path):
    fused, plain = (
        build_trainer(tiny_data, tmp_path, "--optimizer", name) for name in ("fused_adamw", "adam")
    )
    before = weights(fused)
    assert torch.equal(before, weights(plain))
    samples = list(batches(fused, 2))[:5]
    for sample in samples[:4]:
        fused.train_step([sample])
        plain.train_step([sample])
    moved = (weights(plain) - before).abs().mean()
    assert moved > 1e-5
    assert (weights(fused) - weights(plain)).abs().mean() < 0.02 * moved
    optimizer = fused.optimizer.optimizer
    for network in (fused.model, fused.criterion.discriminators):
        assert {float(optimizer.state[p]["step"]) for p in network.parameters()} == {4}

    fused.consolidate_optimizer()
    fused.save_checkpoint(str(tmp_path / "checkpoint.pt"), {})
    resumed = build_trainer(tiny_data, tmp_path, "--optimizer", "fused_adamw")
    resumed.load_checkpoint(str(tmp_path / "checkpoint.pt"))
    for trainer in (fused, resumed):
        trainer.train_step([samples[4]])
    assert_equal_state(fused.model.state_dict(), resumed.model.state_dict())
    assert_equal_state(
        fused.criterion.discriminators.state_dict(), resumed.criterion.discriminators.state_dict()
    )


def test_betas_that_are_none(tiny_data, tmp_path):
    extra = ("--optimizer", "fused_adamw", "--adam-betas", "0.8")
    with pytest.raises(ValueError, match=r"--adam-betas is '0.8', expected a pair as \(0.8,0.99\)"):
        build_trainer(tiny_data, tmp_path, *extra)
