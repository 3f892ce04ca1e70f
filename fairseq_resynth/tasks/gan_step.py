"""One update of a GAN inside fairseq's trainer, and the settings under which it would go wrong.

The generator is fairseq's model, the discriminators are parameters of its criterion, and one Adam holds
both. It is stepped twice: a parameter without gradient stays as it is, so each step moves one network.
"""

import contextlib
from collections.abc import Iterable
from typing import Any, Callable, Dict, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairseq_resynth.modules.discriminators.base import freeze

AUTOCAST_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
ORDERS = ("alternate", "simultaneous")
DDP_BACKENDS = ("legacy_ddp", "no_c10d", "pytorch_ddp", "c10d")


def refuse_settings(settings: Dict[str, Any]) -> None:
    """Refuses what fairseq's trainer would do to a GAN without an error.

    Args:
        settings: gan_update, update_freq, ddp_backend, zero_sharding, and the trainer's mixed precision
            switches.

    Raises:
        ValueError: the option, why, and what to use instead.
    """
    if settings["gan_update"] not in ORDERS:
        raise ValueError(
            f"--gan-update is {settings['gan_update']!r}, expected one of {', '.join(ORDERS)}."
        )
    if list(settings["update_freq"]) != [1]:
        raise ValueError(
            f"--update-freq is {settings['update_freq']}: the discriminators step at every batch, so "
            "gradients cannot be accumulated. Use --update-freq 1 and a larger --batch-size."
        )
    for name in ("fp16", "bf16", "amp", "memory_efficient_fp16", "memory_efficient_bf16"):
        if settings[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} scales and casts for one optimizer step, and this task takes "
                "two. Use --autocast bfloat16."
            )
    if settings["ddp_backend"] not in DDP_BACKENDS or settings["zero_sharding"] != "none":
        raise ValueError(
            f"--ddp-backend {settings['ddp_backend']} with --zero-sharding {settings['zero_sharding']} "
            "shards one model, and this task has two. Use --ddp-backend legacy_ddp."
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context of the forward passes.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in AUTOCAST_DTYPES:
        raise ValueError(
            f"--autocast is {precision!r}, expected one of {', '.join(AUTOCAST_DTYPES)}."
        )
    dtype = AUTOCAST_DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def gan_step(
    sample: Dict[str, Any],
    model,
    criterion,
    optimizer,
    update_num: int,
    precision: str,
    ignore_grad: bool,
    order: str = "alternate",
) -> Tuple[Tensor, int, Dict[str, Any]]:
    """Steps the discriminators and leaves the generator's gradients for fairseq's trainer to step.

    Args:
        sample: {"net_input", "target" (B, 1, T)}.
        model: the generator, with or without its DistributedDataParallel wrapper.
        criterion: HifiganCriterion, wrapped or not.
        optimizer: fairseq's, over the parameters of both.
        update_num: updates done so far.
        precision: `float32` or `bfloat16`, of the forward passes.
        ignore_grad: whether this is a dummy batch, there to keep processes in step.
        order: `alternate`, the generator is judged by the discriminators that have just been stepped; or
            `simultaneous`, by those before, whose one pass serves both networks.

    Returns:
        (loss of the generator, sample size 1, logged terms).
    """
    real = sample["target"]
    weight = 0.0 if ignore_grad else 1.0
    with autocast(real.device, precision):
        fake = model(**sample["net_input"])
    objective = criterion.mel_loss
    terms: Dict[str, Tensor] = {}
    if update_num >= criterion.discriminator_start:
        step = _judge_once if order == "simultaneous" else _judge_twice
        objective, terms = step(real, fake, criterion, optimizer, precision, weight)
    # They stay frozen until the trainer has stepped: legacy_ddp would turn their missing gradients into
    # zeros, and Adam's momentum would move them a second time.
    freeze(criterion.discriminators, True)
    with autocast(real.device, precision):
        loss, generator_terms = objective(real, fake)
        auxiliary = model.auxiliary_losses(sample["net_input"])
        loss = loss + criterion.auxiliary_loss(auxiliary)
    optimizer.backward(loss * weight)
    terms |= {**generator_terms, **auxiliary, "loss": loss}
    detached = {name: value.detach().float() for name, value in terms.items()}
    return loss.detach(), 1, criterion.logged(sample, detached, 1)


def _judge_twice(
    real: Tensor, fake: Tensor, criterion, optimizer, precision: str, weight: float
) -> Tuple[Callable, Dict[str, Tensor]]:
    """Steps the discriminators; returns the generator's objective, which judges again, and the terms."""
    freeze(criterion.discriminators, False)
    with autocast(real.device, precision):
        loss_d = criterion.discriminator_loss(real, fake.detach())
    optimizer.backward(loss_d * weight)
    norm = _step_discriminators(criterion, optimizer, weight)
    return criterion.generator_loss, {"loss_d": loss_d, "gnorm_d": norm}


def _judge_once(
    real: Tensor, fake: Tensor, criterion, optimizer, precision: str, weight: float
) -> Tuple[Callable, Dict[str, Tensor]]:
    """As `_judge_twice`, but its objective has the gradient of the pass that stepped the discriminators."""
    freeze(criterion.discriminators, False)
    judged = fake.detach().requires_grad_()
    with autocast(real.device, precision):
        loss_d, loss_g, judged_terms = criterion.shared_losses(real, judged)
    (gradient,) = torch.autograd.grad(loss_g, judged, retain_graph=True)
    torch.autograd.backward(loss_d * weight, inputs=list(criterion.discriminators.parameters()))
    norm = _step_discriminators(criterion, optimizer, weight)

    def objective(real: Tensor, fake: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
        mel_loss, terms = criterion.mel_loss(real, fake)
        carrier = (fake * gradient).sum()  # worth nothing but its gradient
        return mel_loss + loss_g.detach() + (carrier - carrier.detach()), terms | judged_terms

    return objective, {"loss_d": loss_d, "gnorm_d": norm}


def _step_discriminators(criterion, optimizer, weight: float) -> Tensor:
    """Steps them by the gradients that they hold; returns the gradient norm."""
    parameters = list(criterion.discriminators.parameters())
    # Calling a criterion's method bypasses its DDP wrapper: nobody else averages these gradients.
    average_gradients(parameters, weight)
    norm = torch.nn.utils.clip_grad_norm_(parameters, criterion.clip_norm_d or float("inf"))
    optimizer.step()
    optimizer.zero_grad()
    return norm


def average_gradients(parameters: Iterable[nn.Parameter], weight: float = 1.0) -> None:
    """Replaces gradients by their mean over the processes.

    A criterion whose methods are called directly bypasses its DistributedDataParallel wrapper, so nobody
    else averages its gradients.

    Args:
        parameters: those whose gradients to average; a gradient that is None stays None.
        weight: of this process, 0 for one that has only a dummy batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    total = torch.cat(
        [torch.full_like(gradients[0].flatten()[:1], weight)]
        + [gradient.flatten() * weight for gradient in gradients]
    )
    dist.all_reduce(total)
    mean = total[1:] / total[0].clamp(min=1e-12)
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def compile_once(*networks: nn.Module) -> None:
    """Compiles each network's call in place, unless it has been: names and weights stay as they are.

    A copy of the network is not compiled, nor what a checkpoint of it is loaded into.
    """
    for network in networks:
        if network._compiled_call_impl is None:
            network.compile(dynamic=False)


def uncompiled() -> contextlib.AbstractContextManager:
    """Returns a context in which compiled networks run as written: utterances of every length would have to
    be compiled each.
    """
    return torch.compiler.set_stance("force_eager")
