"""Recorded steps: equal to steps as written, refused where they cannot be recorded; what fits into memory."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_gan_step import assert_equal_state, batches, build_trainer

from fairseq_resynth.modules.weights import prepared_weights
from fairseq_resynth.tasks import memory, training_checks
from fairseq_resynth.tasks.step_graphs import StepGraphs

ORDERS = training_checks.ORDERS
CUDA = torch.device("cuda")


class Again:
    """A capture that runs the function again instead of replaying its kernels."""

    def __init__(self):
        self.functions = []

    def __call__(self, function, parameters):
        self.functions.append(function)
        return function


def smaller(sample):
    """The first row of a batch, as the last batch of an epoch may be."""
    streams = {name: value[:1] for name, value in sample["net_input"].items()}
    return {**sample, "net_input": streams, "target": sample["target"][:1]}


def states(trainer):
    return trainer.model.state_dict(), trainer.criterion.discriminators.state_dict()


@pytest.mark.parametrize(
    "order", ["alternate", pytest.param("simultaneous", marks=pytest.mark.slow)]
)
def test_recorded_steps_are_those_as_written(order, tiny_data, tmp_path):
    """On the processor: static inputs, two recorded halves, another shape, discriminators that begin late."""
    extra = ("--gan-update", order, "--discriminator-start", "2")
    plain, recorded = (build_trainer(tiny_data, tmp_path, *extra) for _ in range(2))
    captures = []
    recorded.task._step.graphs = StepGraphs(lambda: captures.append(Again()) or captures[-1])
    samples = list(batches(plain, 2))[:4]
    samples.insert(3, smaller(samples[3]))
    for sample in samples:
        for trainer in (plain, recorded):
            trainer.train_step([sample])
    for one, other in zip(states(plain), states(recorded), strict=True):
        assert_equal_state(one, other)
    assert [len(each.functions) for each in captures] == [
        2,
        2,
    ]  # before and after the discriminators' start


def test_a_half_that_cannot_be_recorded_is_an_error(tiny_data, tmp_path):
    def capture(function, parameters):
        raise RuntimeError("operation not permitted when stream is capturing\nlong trace")

    trainer = build_trainer(tiny_data, tmp_path)
    trainer.task._step.graphs = StepGraphs(lambda: capture)
    samples = list(batches(trainer, 1))
    trainer.train_step([samples[0]])
    with pytest.raises(ValueError, match="not permitted when stream is capturing. Leave --cuda-gr"):
        trainer.train_step([samples[1]])


GOOD = {"compile": False, "distributed_world_size": 2, "ddp_backend": "legacy_ddp"}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"compile": True}, "cannot be combined with --compile"),
        (
            {"ddp_backend": "pytorch_ddp"},
            "hooks of the backward pass.* use --ddp-backend legacy_ddp",
        ),
    ],
)
def test_settings_without_graphs(change, message):
    training_checks.check_graphs(SimpleNamespace(**GOOD), CUDA)
    with pytest.raises(ValueError, match=f"--cuda-graphs: .*{message}"):
        training_checks.check_graphs(SimpleNamespace(**{**GOOD, **change}), CUDA)


def test_graphs_without_a_gpu_are_refused(tiny_data, tmp_path):
    with pytest.raises(ValueError, match="--cuda-graphs: (--cpu was given|torch finds no CUDA)"):
        build_trainer(tiny_data, tmp_path, "--cuda-graphs")


def test_models_that_cannot_be_recorded(tiny_data, tmp_path):
    trainer = build_trainer(tiny_data, tmp_path, "--duration-predictor")
    with pytest.raises(ValueError, match="--duration-predictor counts .* on the processor"):
        training_checks.check_recordable(trainer.model)
    training_checks.check_recordable(trainer.criterion)
    parameter = next(trainer.criterion.parameters())
    hook = parameter.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match="the gradient of discriminators.* has a hook"):
        training_checks.check_recordable(trainer.criterion)
    hook.remove()
    training_checks.check_recordable(trainer.criterion)


def test_changing_shapes_are_said_before_training(caplog):
    lengths = np.full(1000, 20000)
    training_checks.check_shapes(lengths, 8960, 16, "--compile")
    assert not caplog.records
    lengths[:10] = 6400
    with caplog.at_level(logging.WARNING):
        training_checks.check_shapes(lengths, 8960, 16, "--compile")
    assert "10 of 1000 utterances are shorter" in caplog.text and "about 15 %" in caplog.text
    lengths[:100] = 6400
    with pytest.raises(ValueError, match="100 of 1000 .* 81 % .* Leave --compile out, .* smaller"):
        training_checks.check_shapes(lengths, 8960, 16, "--compile")


class Memory:
    """A GPU with 10 GiB, of which a step takes one, and half of one for each row."""

    def available(self):
        return 10 * memory.GIB

    def peak(self, run):
        try:
            run()
        except torch.OutOfMemoryError:
            return None
        return round((1 + 0.5 * self.rows) * memory.GIB)


def explain(batch_size, per_row=0.5):
    gpu = Memory()

    def step(rows):
        gpu.rows = rows
        if 1 + per_row * rows > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return memory.explain(step, batch_size, 8960, gpu)


def test_out_of_memory_names_what_would_fit():
    message = explain(64)
    assert "--batch-size 64 (on each GPU) with --segment-size 8960" in message
    # 0.95 * 10 GiB less 1 GiB for each step, at half a GiB for each row
    assert "16 utterances need 9.0 of 10.0 GiB, so about 17 fit" in message
    assert "Use --batch-size 17, or --segment-size 1280 with the same batch" in message
    assert "1 utterances need 1.5 of 10.0 GiB, so about 1 fit" in explain(2)
    message = explain(4, per_row=20)
    assert "one utterance does not fit into 10.0 GiB either. Use a smaller --segment" in message


def test_a_step_without_memory_ends_the_training(tiny_data, tmp_path, monkeypatch):
    """fairseq would skip the batch, with a warning, and every other batch after it."""
    trainer = build_trainer(tiny_data, tmp_path)
    forward = trainer.model.forward
    gpu = Memory()
    monkeypatch.setattr(memory, "CudaMemory", lambda: gpu)

    def too_large(units, **streams):
        gpu.rows = len(units)
        if gpu.rows > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(units, **streams)

    monkeypatch.setattr(trainer.model, "forward", too_large)
    before = [state.copy() for state in states(trainer)]
    with pytest.raises(ValueError, match="--batch-size 2 .*: 1 utterances need 1.5 of 10.0 GiB"):
        trainer.train_step([next(batches(trainer, 1))])
    for one, other in zip(before, states(trainer), strict=True):
        assert_equal_state(one, other)


def test_prepared_weights_are_what_autocast_makes(tiny_data, tmp_path):
    """Outputs and gradients in bfloat16, with weight norm and without, and nothing is left behind."""
    layers = torch.nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 4, 5)),
        torch.nn.Conv1d(4, 2, 3, bias=False),
        torch.nn.Linear(12, 2),
    )
    x, found = torch.randn(2, 3, 18), []
    for context in (torch.no_grad, prepared_weights):
        with torch.autocast("cpu", torch.bfloat16):
            if context is prepared_weights:
                with prepared_weights(layers, torch.bfloat16):
                    assert layers[0].weight.dtype == layers[2].bias.dtype == torch.bfloat16
                    y = layers(x)
            else:
                y = layers(x)
        layers.zero_grad()
        y.float().square().sum().backward()
        found.append([y, *[p.grad for p in layers.parameters()]])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other)
    assert all(type(p) is torch.nn.Parameter for p in layers[1:].parameters())
    assert layers[2].weight.dtype == layers[0].weight.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_equal_eager_steps_on_a_gpu(order, precision, tiny_data, tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    extra = ("--gan-update", order, "--autocast", precision, "--discriminator-start", "2")
    logs = []
    for graphs in ([], ["--cuda-graphs"]):
        trainer = build_trainer(tiny_data, tmp_path, *extra, *graphs, cpu=False)
        samples = list(batches(trainer, 2))[:6]
        logs.append([trainer.train_step([sample]) for sample in samples])
    tolerance = 1e-3 if precision == "float32" else 3e-2
    for eager, recorded in zip(*logs, strict=True):
        for name in ("loss", "mel", "adv_g", "fm", "loss_d", "gnorm_d"):
            assert eager.get(name, 0) == pytest.approx(recorded.get(name, 0), rel=tolerance), name
