"""The optimizers of a training, which step all parameters by a few calls instead of ten per parameter.

`--optimizer adam` is fairseq's: the same arithmetic bit for bit, the same state in checkpoints, in torch's
foreach form. `--optimizer fused_adamw` is torch's AdamW in one pass over the parameters: an eighth of the
memory traffic. The two add epsilon at different places, so weights differ in their fifth digit; the recipes
use `adam`.
"""

import ast
import math
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import OPTIMIZER_REGISTRY, FairseqOptimizer, adam, register_optimizer
from omegaconf import II
from torch import Tensor

from fairseq_resynth.modules.options import option

CACHED = 2**18  # parameters of which gradient, means and weights fit into a processor's cache


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales gradients down to a norm of `max_norm` (0: no limit); returns the norm before, () float32."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2)))
    if max_norm > 0:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_(max=1))
    return norm


class ForeachClipping(FairseqOptimizer):
    """fairseq's optimizer with the norm of all gradients in one call."""

    def clip_grad_norm(self, max_norm, aggregate_norm_fn=None):
        """Clips the gradients and returns their norm, as fairseq's own."""
        if aggregate_norm_fn is not None:
            return super().clip_grad_norm(max_norm, aggregate_norm_fn)
        return clip_gradients(self.params, max_norm)


class ForeachAdam(adam.Adam):
    """fairseq's Adam on lists of parameters; the values and the state are those of its loop."""

    def step(self, closure=None):
        """Steps the parameters that have a gradient."""
        if any(group.get("amsgrad") for group in self.param_groups) or not self._all_float32():
            return super().step(closure)
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameters in self._batches(group["params"]):
                self._step(parameters, group)
        return loss

    def _all_float32(self) -> bool:
        given = (p for group in self.param_groups for p in group["params"] if p.grad is not None)
        return all(p.dtype == p.grad.dtype == torch.float32 for p in given)

    def _batches(self, parameters: List[Tensor]) -> Iterable[List[Tensor]]:
        """Those with a gradient, by the steps that they have taken, and on a processor what its cache holds.

        A GPU takes all in one call; a processor would read each list from memory once per operation.
        """
        batches: Dict[Any, List[Tensor]] = {}
        seen = 0
        for p in parameters:
            if p.grad is None:
                continue
            seen += p.numel()
            span = seen // CACHED if p.device.type == "cpu" else 0
            batches.setdefault((self.state[p].get("step", 0), p.device, span), []).append(p)
        return batches.values()

    @torch.no_grad()
    def _step(self, parameters: List[Tensor], group: Dict[str, Any]) -> None:
        for p in parameters:
            state = self.state[p]
            if not state:
                zeros = torch.zeros_like(p, memory_format=torch.preserve_format)
                state.update(step=0, exp_avg=zeros, exp_avg_sq=zeros.clone())
            state["step"] += 1
        gradients = [p.grad for p in parameters]
        means, squares = (
            [self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq")
        )
        (beta1, beta2), lr, step = group["betas"], group["lr"], self.state[parameters[0]]["step"]
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        if group["weight_decay"]:
            torch._foreach_add_(parameters, parameters, alpha=-group["weight_decay"] * lr)
        size = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        torch._foreach_addcdiv_(parameters, means, roots, value=-size)


class FairseqAdam(ForeachClipping, adam.FairseqAdam):
    """`--optimizer adam`; fairseq's name, by which a checkpoint knows its optimizer."""

    def __init__(self, cfg: adam.FairseqAdamConfig, params):
        super().__init__(cfg, params)
        if type(self._optimizer) is adam.Adam:  # neither apex's nor a TPU's
            self._optimizer = ForeachAdam(self._optimizer.param_groups)


OPTIMIZER_REGISTRY["adam"] = FairseqAdam


@dataclass
class FusedAdamWConfig(FairseqDataclass):
    """The options of AdamW, with the names that they have for fairseq's Adam."""

    adam_betas: Any = option((0.9, 0.999), "decay rates of the two running means, as (0.8,0.99)")
    adam_eps: float = option(1e-8, "epsilon, added to the root of the second running mean")
    weight_decay: float = option(0.0, "decoupled weight decay")
    lr: List[float] = II("optimization.lr")


@register_optimizer("fused_adamw", dataclass=FusedAdamWConfig)
class FusedAdamW(ForeachClipping):
    """torch.optim.AdamW(fused=True) for fairseq's trainer; a parameter without a gradient stays unchanged."""

    def __init__(self, cfg: FusedAdamWConfig, params):
        super().__init__(cfg)
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """The settings that replace those of a checkpoint when training resumes.

        Raises ValueError if the betas are not a pair of numbers.
        """
        lr, betas = self.cfg.lr, self.cfg.adam_betas
        try:
            betas = ast.literal_eval(betas) if isinstance(betas, str) else betas
            first, second = map(float, betas)
        except (ValueError, TypeError, SyntaxError) as error:
            raise ValueError(
                f"--adam-betas is {self.cfg.adam_betas!r}, expected a pair as (0.8,0.99)."
            ) from error
        return {
            "lr": float(lr if isinstance(lr, int | float) else lr[0]),
            "betas": (first, second),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }
