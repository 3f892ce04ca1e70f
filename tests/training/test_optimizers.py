"""`adam` equals fairseq's loop bit for bit; `fused_adamw` is near it; both resume bit for bit."""

import copy

import pytest
import torch
from fairseq import utils
from fairseq.optim.adam import Adam
from test_gan_step import assert_equal_state, batches, build_trainer

from fairseq_resynth.tasks import optimizers


def step_with(optimizer, parameters, seed):
    """A step with random gradients; every third parameter has none."""
    generator = torch.Generator().manual_seed(seed)
    for index, p in enumerate(parameters):
        gradient = torch.randn(p.shape, generator=generator)
        p.grad = None if (index + seed) % 3 == 0 else gradient
    optimizer.step()


@pytest.mark.parametrize("cached", [7, 2**18])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_is_fairseqs_bit_for_bit(cached, weight_decay, monkeypatch):
    monkeypatch.setattr(optimizers, "CACHED", cached)
    ours = [torch.nn.Parameter(torch.randn(size, 3)) for size in (1, 5, 33, 200, 2)]
    theirs = copy.deepcopy(ours)
    settings = {"lr": 2e-4, "betas": (0.8, 0.99), "weight_decay": weight_decay}
    plain, foreach = Adam(theirs, **settings), optimizers.ForeachAdam(ours, **settings)
    for seed in range(6):
        step_with(plain, theirs, seed)
        step_with(foreach, ours, seed)
        if seed == 3:  # a checkpoint of fairseq's goes on with ours
            foreach = optimizers.ForeachAdam(ours, **settings)
            foreach.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert all(map(torch.equal, ours, theirs))
    assert str(foreach.state_dict()) == str(plain.state_dict())


@pytest.mark.parametrize("limit", [0, 0.5, 1e6])
def test_clipping_is_fairseqs(limit):
    ours = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 40)]
    for p in ours:
        p.grad = torch.randn_like(p)
    theirs = copy.deepcopy(ours)
    for p, q in zip(ours, theirs, strict=True):
        q.grad = p.grad.clone()
    norms = optimizers.clip_gradients(ours, limit), utils.clip_grad_norm_(theirs, limit)
    assert torch.equal(*norms)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours, theirs, strict=True))
    assert optimizers.clip_gradients([torch.nn.Parameter(torch.zeros(1))], 1.0) == 0


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
