"""One update of a GAN inside fairseq's trainer.

The generator is fairseq's model, the discriminators are parameters of its criterion, and one Adam holds
both. It is stepped twice: a parameter whose gradient is None stays as it is, so each step moves one network.
"""

import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch._functorch.config
import torch.distributed as dist
from torch import Tensor, nn

from fairseq_resynth.modules.discriminators.base import freeze
from fairseq_resynth.modules.weights import prepared_weights
from fairseq_resynth.tasks import memory
from fairseq_resynth.tasks.optimizers import clip_gradients
from fairseq_resynth.tasks.step_graphs import RepeatedShape, StepGraphs

logger = logging.getLogger(__name__)
AUTOCAST_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass
class Halfway:
    """What the second half of a step takes from the first.

    Attributes:
        fake: generated speech (B, 1, T), with its autograd graph.
        auxiliary: the model's auxiliary losses by name.
        terms: losses of the first half that are logged.
        shared: with the order `simultaneous`, the generator's adversarial loss, its gradient with respect to
            `fake`, and its terms.
    """

    fake: Tensor
    auxiliary: Dict[str, Tensor]
    terms: Dict[str, Tensor] = field(default_factory=dict)
    shared: Optional[Tuple[Tensor, Tensor, Dict[str, Tensor]]] = None


class GanStep:
    """Steps the discriminators and leaves the generator's gradients for fairseq's trainer to step.

    Args:
        precision: `float32` or `bfloat16`, of the forward passes.
        order: `alternate`, as published, where the generator learns from discriminators that have just been
            stepped; or `simultaneous`, where one pass of the discriminators serves both steps.
        compiled: whether the networks are compiled, which then prepare their weights themselves.
        graphs: records the halves of the step on a GPU and replays them; None: every step runs as written.
    """

    def __init__(
        self,
        precision: str = "float32",
        order: str = "alternate",
        compiled: bool = False,
        graphs: Optional[StepGraphs] = None,
    ):
        self.precision = precision
        self.order = order
        self.compiled = compiled
        self.graphs = graphs

    def __call__(
        self, sample, model, criterion, optimizer, update_num: int, ignore_grad: bool
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Returns (loss of the generator, sample size 1, logged terms).

        Args:
            sample: {"net_input", "target" (B, 1, T)}.
            model: the generator, with or without its DistributedDataParallel wrapper.
            criterion: `HifiganCriterion`, wrapped or not.
            optimizer: fairseq's optimizer of the parameters of both.
            update_num: number of updates so far.
            ignore_grad: whether this is a dummy batch, which only keeps the processes in step.
        """
        adversarial = update_num >= criterion.cfg.discriminator_start
        weight = 0.0 if ignore_grad else 1.0
        freeze(criterion.discriminators, not adversarial)

        def first(inputs: Dict[str, Any]) -> Halfway:
            return self.first_half(inputs, model, criterion, adversarial, weight)

        def second(inputs: Dict[str, Any], halfway: Halfway) -> Dict[str, Tensor]:
            return self.second_half(inputs, halfway, criterion, adversarial, weight)

        inputs = {"net_input": sample["net_input"], "target": sample["target"]}
        if self.graphs is not None and not ignore_grad:
            networks = model, criterion
            first, second = self.graphs.halves(inputs, networks, adversarial, first, second)
        halfway = first(inputs)
        terms = dict(halfway.terms)
        if adversarial:
            terms["gnorm_d"] = _step_discriminators(criterion, optimizer, weight)
        # They stay frozen until the trainer has stepped (`optimizer_step` of the task): legacy_ddp would turn
        # their missing gradients into zeros, and Adam's momentum would move them a second time.
        freeze(criterion.discriminators, True)
        terms |= second(inputs, halfway)
        detached = {name: value.detach().float() for name, value in terms.items()}
        return terms["loss"].detach(), 1, criterion.logged(sample, detached, 1)

    def first_half(self, inputs, model, criterion, adversarial: bool, weight: float) -> Halfway:
        """Generates, and computes the gradients of the discriminators if the step is adversarial."""
        real, net_input = inputs["target"], inputs["net_input"]
        # The only forward pass of the generator: both networks learn from the same generated speech.
        with self._forward(real.device, model):
            fake = model(**net_input)
            halfway = Halfway(fake, model.auxiliary_losses(net_input))
        if not adversarial:
            return halfway
        if self.order == "simultaneous":
            self._shared_half(halfway, real, criterion, weight)
            return halfway
        with self._forward(real.device, criterion.discriminators):
            loss = criterion.discriminator_loss(real, fake.detach())
        (loss * weight).backward()
        halfway.terms["loss_d"] = loss.detach()
        return halfway

    def _shared_half(self, halfway: Halfway, real: Tensor, criterion, weight: float) -> None:
        # The pass ends at a leaf, so that its gradient for the generator can be taken before the
        # discriminators step: stepping changes their weights in place, after which the graph could not be run
        # backward.
        leaf = halfway.fake.detach().requires_grad_()
        with self._forward(real.device, criterion.discriminators):
            loss_d, loss_g, terms = criterion.shared_losses(real, leaf)
        (gradient,) = torch.autograd.grad(loss_g, leaf, retain_graph=True)
        torch.autograd.backward(loss_d * weight, inputs=list(criterion.discriminators.parameters()))
        halfway.terms["loss_d"] = loss_d.detach()
        terms = {name: value.detach() for name, value in terms.items()}
        halfway.shared = loss_g.detach(), gradient, terms

    def second_half(
        self, inputs, halfway: Halfway, criterion, adversarial: bool, weight: float
    ) -> Dict[str, Tensor]:
        """Computes the gradients of the generator; returns its losses. The discriminators are frozen."""
        real, fake = inputs["target"], halfway.fake
        scores_again = adversarial and halfway.shared is None
        with self._forward(real.device, criterion.discriminators if scores_again else None):
            if scores_again:
                loss, terms = criterion.generator_loss(real, fake)
            else:
                loss, terms = criterion.mel_loss(real, fake)
            if halfway.shared is not None:
                loss_g, gradient, adversarial_terms = halfway.shared
                carrier = (fake * gradient).sum()  # its derivative is `gradient`; its value cancels
                loss = loss + loss_g + (carrier - carrier.detach())
                terms = terms | adversarial_terms
            loss = loss + criterion.auxiliary_loss(halfway.auxiliary)
        (loss * weight).backward()
        terms = terms | halfway.auxiliary | {"loss": loss}
        return {name: value.detach() for name, value in terms.items()}

    def out_of_memory(self, sample, model, criterion, update_num: int) -> str:
        """The message of a step that ran out of a GPU's memory: what would fit, by trying smaller batches."""
        adversarial = update_num >= criterion.cfg.discriminator_start
        parameters = [p for network in (model, criterion) for p in network.parameters()]

        def clear() -> None:
            for parameter in parameters:
                parameter.grad = None

        def run(rows: int) -> None:
            inputs = memory.first_rows(sample, rows)
            try:
                freeze(criterion.discriminators, not adversarial)
                halfway = self.first_half(inputs, model, criterion, adversarial, 0.0)
                freeze(criterion.discriminators, True)
                self.second_half(inputs, halfway, criterion, adversarial, 0.0)
            finally:
                clear()

        clear()
        self.graphs = None
        rows, _, segment = sample["target"].shape
        return memory.explain(run, rows, segment, memory.CudaMemory())

    @contextlib.contextmanager
    def _forward(self, device: torch.device, network: Optional[nn.Module]):
        """The context of a forward pass of a network; None: of losses only."""
        dtype = AUTOCAST_DTYPES[self.precision]
        plain = self.compiled or network is None
        weights = contextlib.nullcontext() if plain else prepared_weights(network, dtype)
        with autocast(device, self.precision), weights:
            yield


def _step_discriminators(criterion, optimizer, weight: float) -> Tensor:
    """Steps them by the gradients that they hold; returns the norm of these gradients."""
    parameters = list(criterion.discriminators.parameters())
    # Calling a method of the criterion bypasses its DDP wrapper. Without this average the discriminators
    # of the processes would silently become different ones.
    average_gradients(parameters, weight)
    norm = clip_gradients(parameters, criterion.cfg.clip_norm_d)
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
    parts = mean.split([gradient.numel() for gradient in gradients])
    shaped = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(gradients, shaped)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of the forward passes. Raises ValueError if the precision is unknown."""
    if precision not in AUTOCAST_DTYPES:
        raise ValueError(
            f"--autocast is {precision!r}, expected one of {', '.join(AUTOCAST_DTYPES)}."
        )
    dtype = AUTOCAST_DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


class CompiledStep:
    """Compiles generator, discriminators and losses for the shape of a training's batches.

    Steps on other shapes run as written. Logs how long compiling took: twice, if the discriminators begin
    later.
    """

    def __init__(self):
        self._fits = RepeatedShape()
        self._seconds: Dict[bool, List[float]] = {True: [], False: []}

    def __call__(
        self, step: "GanStep", sample, model, criterion, optimizer, update_num, ignore_grad
    ):
        """A call of `GanStep`."""
        arguments = (sample, model, criterion, optimizer, update_num, ignore_grad)
        if not self._fits(sample):
            with uncompiled():
                return step(*arguments)
        if step.order == "simultaneous":  # the second backward needs what the first would overwrite
            torch._functorch.config.donated_buffer = False
        criterion.compile_once()
        if model.waveform_generator._compiled_call_impl is None:
            model.waveform_generator.compile(dynamic=False)
        seconds = self._seconds[update_num >= criterion.cfg.discriminator_start]
        if len(seconds) == 2:
            return step(*arguments)
        started = time.monotonic()
        result = step(*arguments)
        float(result[0])  # waits for a GPU
        seconds.append(time.monotonic() - started)
        if len(seconds) == 2:
            message = "--compile: compiling took %.1f s; an update takes %.3f s now"
            logger.info(message, seconds[0] - seconds[1], seconds[1])
        return result


def uncompiled() -> contextlib.AbstractContextManager:
    """A context in which compiled networks run as written: every length would need its own compilation."""
    return torch.compiler.set_stance("force_eager")
