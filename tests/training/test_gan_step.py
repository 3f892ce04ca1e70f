"""The GAN step inside fairseq's trainer against a plain loop with two optimizers; its guard rails."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim.adam import Adam
from fairseq.trainer import Trainer
from small_corpus import run, train_arguments
from torch.nn.utils import parametrize

import fairseq_resynth.tasks  # noqa: F401  registers the plugin
from fairseq_resynth.modules import losses
from fairseq_resynth.modules.discriminators.base import freeze
from fairseq_resynth.tasks.training_checks import check_settings


def build_trainer(data, save_dir, *extra, cpu=True):
    parser = options.get_training_parser()
    arguments = train_arguments(data, save_dir, *extra)
    if not cpu:
        arguments.remove("--cpu")
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))
    torch.manual_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.lr_step(0)
    return trainer


def batches(trainer, epochs):
    for epoch in range(1, epochs + 1):
        iterator = trainer.get_train_iterator(epoch)
        yield from iterator.next_epoch_itr(fix_batches_to_gpus=False, shuffle=False)


def plain_loop(trainer, samples):
    """The published order of steps, two of fairseq's own Adams, nothing frozen.

    The normalized weights are computed once for real and generated speech, as they are the same; spectral
    norm would otherwise take a power iteration for each. The losses are the step's own functions.
    """
    model, discriminators = trainer.model, trainer.criterion.discriminators
    criterion = trainer.criterion
    settings = {"lr": 2e-4, "betas": (0.8, 0.99), "weight_decay": 0.01}
    step_g, step_d = (
        Adam(model.parameters(), **settings),
        Adam(discriminators.parameters(), **settings),
    )
    for sample in samples:
        real = sample["target"]
        fake = model(**sample["net_input"])
        step_d.zero_grad()
        scores = [torch.chunk(s, 2) for s in discriminators(torch.cat([real, fake.detach()]))[0]]
        losses.discriminator_loss([s[0] for s in scores], [s[1] for s in scores]).backward()
        step_d.step()
        step_g.zero_grad()
        with parametrize.cached():
            _, real_maps = discriminators(real)
            fake_scores, fake_maps = discriminators(fake)
        mel = criterion.mel_distance(real, fake)
        adversarial = losses.generator_loss(fake_scores)
        matching = losses.feature_matching_loss(
            [[m.detach() for m in maps] for maps in real_maps], fake_maps
        )
        (45 * mel + adversarial + 2 * matching).backward()
        step_g.step()


def simultaneous_loop(trainer, samples):
    """Both networks step from one pass of the discriminators; each loss is for its network's parameters."""
    model, criterion = trainer.model, trainer.criterion
    discriminators = criterion.discriminators
    networks = [list(network.parameters()) for network in (model, discriminators)]
    steps = [
        Adam(parameters, lr=2e-4, betas=(0.8, 0.99), weight_decay=0.01) for parameters in networks
    ]
    for sample in samples:
        real, fake = sample["target"], model(**sample["net_input"])
        mel = criterion.mel_distance(real, fake)
        with parametrize.cached():
            real_scores, real_maps = discriminators(real)
            fake_scores, fake_maps = discriminators(fake)
        real_maps = [[feature_map.detach() for feature_map in maps] for maps in real_maps]
        matching = losses.feature_matching_loss(real_maps, fake_maps)
        loss_g = 45 * mel + losses.generator_loss(fake_scores) + 2 * matching
        loss_d = losses.discriminator_loss(real_scores, fake_scores)
        for step, loss, parameters in zip(steps, (loss_g, loss_d), networks, strict=True):
            step.zero_grad()
            loss.backward(inputs=parameters, retain_graph=True)
        for step in steps:
            step.step()


def assert_equal_state(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        if torch.is_tensor(value):
            assert torch.equal(value, two[name]), name


LOOPS = {"alternate": plain_loop, "simultaneous": simultaneous_loop}


@pytest.mark.parametrize("updates", [20, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("order,loop", LOOPS.items())
def test_equals_a_plain_loop_bit_for_bit(order, loop, updates, tiny_data, tmp_path):
    inside, outside = (build_trainer(tiny_data, tmp_path, "--gan-update", order) for _ in range(2))
    assert_equal_state(inside.model.state_dict(), outside.model.state_dict())
    samples = list(itertools.islice(batches(outside, updates), updates))
    assert len(samples) == updates
    for sample in samples:
        inside.train_step([sample])
    outside.model.train()
    outside.criterion.train()
    loop(outside, samples)
    assert_equal_state(inside.model.state_dict(), outside.model.state_dict())
    discriminators = [t.criterion.discriminators.state_dict() for t in (inside, outside)]
    assert_equal_state(*discriminators)


def test_each_network_moves_once_an_update(tiny_data, tmp_path):
    """Adam counts its steps: a second, momentum-only step of the discriminators would show here."""
    trainer = build_trainer(tiny_data, tmp_path)
    for sample in list(batches(trainer, 1))[:3]:
        trainer.train_step([sample])
    optimizer = trainer.optimizer.optimizer
    for network in (trainer.model, trainer.criterion.discriminators):
        assert {optimizer.state[p]["step"] for p in network.parameters()} == {3}


def test_discriminators_have_no_gradient_when_the_trainer_steps(tiny_data, tmp_path, monkeypatch):
    trainer = build_trainer(tiny_data, tmp_path)
    seen = []
    reduce_gradients = trainer.optimizer.all_reduce_grads

    def record(module):
        parameters = trainer.criterion.discriminators.parameters()
        seen.append([(p.requires_grad, p.grad) for p in parameters])
        reduce_gradients(module)

    monkeypatch.setattr(trainer.optimizer, "all_reduce_grads", record)
    trainer.train_step([next(batches(trainer, 1))])
    assert seen and all(state == (False, None) for states in seen for state in states)
    # … and they are trainable again when it is done, so that no optimizer built later drops them.
    assert all(p.requires_grad for p in trainer.criterion.discriminators.parameters())


def test_checkpoint_model_holds_no_discriminator(tiny_data, tmp_path):
    trainer = build_trainer(tiny_data, tmp_path)
    trainer.train_step([next(batches(trainer, 1))])
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pt"), {})
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["model"] and all(name.startswith("unit_generator.") for name in state["model"])
    weights = [name for name in state["criterion"] if name != "_extra_state"]
    assert weights and all(name.startswith("discriminators.") for name in weights)
    assert state["task_state"]["streams"]["speakers"] == ["anna", "boris"]


def test_the_orders_differ_in_what_the_generator_hears(tiny_data, tmp_path):
    """One update: the discriminators step alike, the generator learns before or after it."""
    trainers = [build_trainer(tiny_data, tmp_path, "--gan-update", order) for order in LOOPS]
    logs = [trainer.train_step([next(batches(trainer, 1))]) for trainer in trainers]
    assert logs[0]["mel"] == logs[1]["mel"]
    assert logs[0]["loss_d"] == pytest.approx(logs[1]["loss_d"], rel=1e-4)
    assert abs(logs[0]["adv_g"] / logs[1]["adv_g"] - 1) > 1e-3
    weights = [[p.detach() for p in trainer.model.parameters()] for trainer in trainers]
    assert not all(map(torch.equal, *weights))


@pytest.mark.parametrize("order", LOOPS)
def test_dummy_batch_moves_nothing(order, tiny_data, tmp_path):
    trainer = build_trainer(tiny_data, tmp_path, "--gan-update", order)
    sample = next(batches(trainer, 1))
    trainer.task.train_step(sample, trainer.model, trainer.criterion, trainer.optimizer, 0, True)
    gradients = [p.grad for p in trainer.model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    freeze(trainer.criterion.discriminators, False)


GOOD = {
    "gan_update": "alternate", "update_freq": [1],
    "fp16": False, "bf16": False, "amp": False, "memory_efficient_fp16": False,
    "memory_efficient_bf16": False, "ddp_backend": "legacy_ddp", "zero_sharding": "none",
}  # fmt: skip


@pytest.mark.parametrize(
    "setting,value,message",
    [
        ("gan_update", "both", "'both', expected one of alternate, simultaneous"),
        ("update_freq", [2], "cannot be accumulated. Use --update-freq 1"),
        ("fp16", True, "--fp16 .* Use --autocast bfloat16"),
        ("bf16", True, "--bf16 .* Use --autocast bfloat16"),
        ("amp", True, "--amp .* Use --autocast bfloat16"),
        ("memory_efficient_fp16", True, "--memory-efficient-fp16 .* Use --autocast bfloat16"),
        ("memory_efficient_bf16", True, "--memory-efficient-bf16 .* Use --autocast bfloat16"),
        ("ddp_backend", "fully_sharded", "Use --ddp-backend legacy_ddp"),
        ("zero_sharding", "os", "Use --ddp-backend legacy_ddp"),
    ],
)
def test_settings_that_would_break_it_are_refused(setting, value, message):
    check_settings(SimpleNamespace(**GOOD))
    with pytest.raises(ValueError, match=message):
        check_settings(SimpleNamespace(**{**GOOD, setting: value}))


def test_the_command_line_refuses_too(tiny_data, tmp_path):
    arguments = train_arguments(tiny_data, tmp_path, "--update-freq", "2", "--max-update", "1")
    done = run("fairseq-train", *arguments, check=False)
    assert done.returncode != 0
    assert "gradients cannot be accumulated" in done.stderr


@pytest.mark.parametrize("order", LOOPS)
def test_autocast_bfloat16_stays_near_float32(order, tiny_data, tmp_path):
    logs = []
    for precision in ("float32", "bfloat16"):
        extra = ["--autocast", precision, "--gan-update", order]
        trainer = build_trainer(tiny_data, tmp_path, *extra)
        trainer.train_step([next(batches(trainer, 1))])
        logs.append(trainer.train_step([next(batches(trainer, 1))]))
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    for name in ("mel", "adv_g", "loss_d"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=0.03)
    assert logs[0]["mel"] != logs[1]["mel"]  # the option does something


def test_discriminators_wait_for_their_start(tiny_data, tmp_path):
    trainer = build_trainer(tiny_data, tmp_path, "--discriminator-start", "1")
    before = [p.clone() for p in trainer.criterion.discriminators.parameters()]
    samples = list(batches(trainer, 1))
    first = trainer.train_step([samples[0]])
    after = list(trainer.criterion.discriminators.parameters())
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert "loss_d" not in first and first["loss"] == pytest.approx(45 * first["mel"], rel=1e-3)
    assert "loss_d" in trainer.train_step([samples[1]])
    assert not all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
