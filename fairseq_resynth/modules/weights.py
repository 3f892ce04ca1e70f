"""The weights of a network as its layers use them: normalized, and in the precision of autocast."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

# the layers that autocast computes in 16 bits
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class _Cast(torch.autograd.Function):
    """Tensors in another precision by one call for all of them, and so their gradients."""

    @staticmethod
    def forward(ctx, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_converted(tensors, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor | None):
        given = [each for each in gradients if each is not None]
        converted = iter(_converted(given, torch.float32) if given else [])
        return None, *[None if each is None else next(converted) for each in gradients]


def _converted(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    results = [torch.empty_like(each, dtype=dtype) for each in tensors]
    torch._foreach_copy_(results, tensors)
    return results


@contextlib.contextmanager
def prepared_weights(network: nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
    """A context in which the weights of a network are normalized once and converted once.

    Without it, weight norm and spectral norm compute a weight at each use, and autocast converts each weight
    and bias at each use by a call of its own. Do not nest it, and change no weight inside it.

    Args:
        network: its convolutions and linear layers are prepared.
        dtype: precision of autocast; None: float32, nothing is converted.
    """
    with parametrize.cached():
        if dtype is None or torch.compiler.is_compiling():
            yield
            return
        layers = [module for module in network.modules() if isinstance(module, LAYERS)]
        device = next(network.parameters()).device
        with torch.autocast(device.type, enabled=False):  # norms in float32
            places = [
                (layer, name, getattr(layer, name))
                for layer in layers
                for name in ("weight", "bias")
                if getattr(layer, name) is not None
            ]
            casts = _Cast.apply(dtype, *[tensor for *_, tensor in places])
        try:
            for (layer, name, _), cast in zip(places, casts, strict=True):
                if parametrize.is_parametrized(layer, name):
                    parametrize._cache[id(layer), name] = cast
                else:  # is found before the parameter of the same name
                    layer.__dict__[name] = cast
            yield
        finally:
            for layer, name, _ in places:
                layer.__dict__.pop(name, None)
