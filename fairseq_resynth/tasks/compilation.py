"""torch.compile for the networks of a training, where every crop has one size; validation goes without."""

import contextlib

import torch
from torch import nn


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
