"""One update of a GAN inside fairseq's trainer, and checks for unsupported settings and machines.

The generator is fairseq's model, the discriminators are parameters of its criterion, and one Adam holds
both. It is stepped twice: a parameter whose gradient is None stays as it is, so each step moves one network.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable
from typing import Any, Callable, Dict, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairseq_resynth.modules.discriminators.base import freeze
from fairseq_resynth.modules.generators.inference import slow_bfloat16

AUTOCAST_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
ORDERS = ("alternate", "simultaneous")
DDP_BACKENDS = ("legacy_ddp", "no_c10d", "pytorch_ddp", "c10d")
UNCOMPILED = "Leave --compile out: the training is the same, only uncompiled."


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
        criterion: `HifiganCriterion`, wrapped or not.
        optimizer: fairseq's optimizer of the parameters of both.
        update_num: number of updates so far.
        precision: `float32` or `bfloat16`, of the forward passes.
        ignore_grad: whether this is a dummy batch, which only keeps the processes in step.
        order: `alternate`, as published, where the generator learns from discriminators that have just been
            stepped; or `simultaneous`, where one pass of the discriminators serves both steps.

    Returns (loss of the generator, sample size 1, logged terms).
    """
    real = sample["target"]
    weight = 0.0 if ignore_grad else 1.0
    # The only forward pass of the generator: both networks learn from the same generated speech.
    with autocast(real.device, precision):
        fake = model(**sample["net_input"])
    objective = criterion.mel_loss
    terms: Dict[str, Tensor] = {}
    if update_num >= criterion.cfg.discriminator_start:
        step = _simultaneous_step if order == "simultaneous" else _alternate_step
        objective, terms = step(real, fake, criterion, optimizer, precision, weight)
    # They stay frozen until the trainer has stepped (`optimizer_step` of the task): legacy_ddp would turn
    # their missing gradients into zeros, and Adam's momentum would move them a second time.
    freeze(criterion.discriminators, True)
    with autocast(real.device, precision):
        loss, generator_terms = objective(real, fake)
        auxiliary = model.auxiliary_losses(sample["net_input"])
        loss = loss + criterion.auxiliary_loss(auxiliary)
    optimizer.backward(loss * weight)
    terms |= {**generator_terms, **auxiliary, "loss": loss}
    detached = {name: value.detach().float() for name, value in terms.items()}
    return loss.detach(), 1, criterion.logged(sample, detached, 1)


def _alternate_step(
    real: Tensor, fake: Tensor, criterion, optimizer, precision: str, weight: float
) -> Tuple[Callable, Dict[str, Tensor]]:
    """Steps the discriminators; returns the generator's objective, with a pass of its own, and the terms."""
    freeze(criterion.discriminators, False)
    with autocast(real.device, precision):
        loss_d = criterion.discriminator_loss(real, fake.detach())
    optimizer.backward(loss_d * weight)
    norm = _step_discriminators(criterion, optimizer, weight)
    return criterion.generator_loss, {"loss_d": loss_d, "gnorm_d": norm}


def _simultaneous_step(
    real: Tensor, fake: Tensor, criterion, optimizer, precision: str, weight: float
) -> Tuple[Callable, Dict[str, Tensor]]:
    """Steps the discriminators; returns an objective with the gradient of their same pass, and the terms."""
    freeze(criterion.discriminators, False)
    # The pass ends at a leaf, so that its gradient for the generator can be taken before the discriminators
    # step: stepping changes their weights in place, after which the graph could not be run backward.
    leaf = fake.detach().requires_grad_()
    with autocast(real.device, precision):
        loss_d, loss_g, adversarial_terms = criterion.shared_losses(real, leaf)
    (gradient,) = torch.autograd.grad(loss_g, leaf, retain_graph=True)
    torch.autograd.backward(loss_d * weight, inputs=list(criterion.discriminators.parameters()))
    norm = _step_discriminators(criterion, optimizer, weight)

    def objective(real: Tensor, fake: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
        mel_loss, terms = criterion.mel_loss(real, fake)
        carrier = (fake * gradient).sum()  # its derivative is `gradient`; its value cancels below
        return mel_loss + loss_g.detach() + (carrier - carrier.detach()), terms | adversarial_terms

    return objective, {"loss_d": loss_d, "gnorm_d": norm}


def _step_discriminators(criterion, optimizer, weight: float) -> Tensor:
    """Steps them by the gradients that they hold; returns the norm of these gradients."""
    parameters = list(criterion.discriminators.parameters())
    # Calling a method of the criterion bypasses its DDP wrapper. Without this average the discriminators
    # of the processes would silently become different ones.
    average_gradients(parameters, weight)
    norm = torch.nn.utils.clip_grad_norm_(parameters, criterion.cfg.clip_norm_d or float("inf"))
    optimizer.step()  # the generator has no gradients yet, so it does not move
    optimizer.zero_grad()
    return norm


def average_gradients(parameters: Iterable[nn.Parameter], weight: float = 1.0) -> None:
    """Replaces gradients by their mean over the processes; a gradient that is None stays None.

    `weight` is that of this process, 0 for one that has only a dummy batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    # One call for all of them and the weight, since each call costs a round trip between the processes.
    total = torch.cat(
        [torch.full_like(gradients[0].flatten()[:1], weight)]
        + [gradient.flatten() * weight for gradient in gradients]
    )
    dist.all_reduce(total)
    mean = total[1:] / total[0].clamp(min=1e-12)
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of the forward passes. Raises ValueError if the precision is unknown."""
    if precision not in AUTOCAST_DTYPES:
        raise ValueError(
            f"--autocast is {precision!r}, expected one of {', '.join(AUTOCAST_DTYPES)}."
        )
    dtype = AUTOCAST_DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def compile_once(*networks: nn.Module) -> None:
    """Compiles the call of each network in place, unless it is compiled already; a copy is not compiled."""
    for network in networks:
        if network._compiled_call_impl is None:
            network.compile(dynamic=False)


def uncompiled() -> contextlib.AbstractContextManager:
    """A context in which compiled networks run as written: every length would need its own compilation."""
    return torch.compiler.set_stance("force_eager")


def check_settings(cfg) -> None:
    """Raises ValueError for settings with which fairseq's trainer would train a GAN wrongly without an error.

    `cfg` is a `UnitResynthesisConfig`, or has its settings of the step, of DDP and of mixed precision.
    """
    if cfg.gan_update not in ORDERS:
        raise ValueError(
            f"--gan-update is {cfg.gan_update!r}, expected one of {', '.join(ORDERS)}."
        )
    if list(cfg.update_freq) != [1]:
        raise ValueError(
            f"--update-freq is {cfg.update_freq}: the discriminators step at every batch, so "
            "gradients cannot be accumulated. Use --update-freq 1 and a larger --batch-size."
        )
    # --amp would also unscale the gradients twice.
    for name in ("fp16", "bf16", "amp", "memory_efficient_fp16", "memory_efficient_bf16"):
        if getattr(cfg, name):
            raise ValueError(
                f"--{name.replace('_', '-')} scales and casts for one optimizer step, and this task takes "
                "two. Use --autocast bfloat16."
            )
    if cfg.ddp_backend not in DDP_BACKENDS or cfg.zero_sharding != "none":
        raise ValueError(
            f"--ddp-backend {cfg.ddp_backend} with --zero-sharding {cfg.zero_sharding} "
            "shards one model, and this task has two. Use --ddp-backend legacy_ddp."
        )


def check_precision(device: torch.device, precision: str) -> None:
    """Logs a warning if the device is slow at bfloat16; raises ValueError if it is a GPU without it."""
    if precision != "bfloat16":
        return
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError(
            f"--autocast bfloat16: {torch.cuda.get_device_name(device)} cannot compute it. "
            "Use --autocast float32."
        )
    obstacle = slow_bfloat16(device)
    if obstacle:
        message = "--autocast bfloat16: %s. Use --autocast float32."
        logging.getLogger(__name__).warning(message, obstacle)


def check_compiler(device: torch.device) -> None:
    """Compiles a few operations, since torch.compile finds out what it lacks only when it runs.

    Raises ValueError, which says what is missing, if it fails.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"--compile: the C++ compiler {compiler!r} does not exist, and torch.compile writes C++ for the "
            f"processor. Install g++, or name another in the environment variable CXX. {UNCOMPILED}"
        )
    try:
        probe = torch.compile(lambda wave: torch.tanh(wave) * 0.5 + wave, dynamic=False)
        probe(torch.zeros(64, device=device))
    except Exception as error:  # torch's own classes for it are not public
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(
            f"--compile: torch.compile fails on {device}: {reason.rstrip('.')}. {UNCOMPILED}"
        ) from error
