"""What the processor and this build of torch can do, asked before the training starts."""

import logging
import os
import shutil

import torch

from fairseq_resynth.modules.generators.inference import slow_bfloat16

FALLBACK = "Leave --compile out: the training is the same, uncompiled."


def training_device(cpu: bool) -> torch.device:
    """Returns where fairseq's trainer will put the networks, `cpu` being its option --cpu."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def check_capabilities(device: torch.device, precision: str, compiled: bool) -> None:
    """Refuses what cannot be done there; see `check_precision` and `check_compiler`."""
    check_precision(device, precision)
    if compiled:
        check_compiler(device)


def check_precision(device: torch.device, precision: str) -> None:
    """Refuses what a GPU cannot compute; warns of what a processor computes slowly.

    Args:
        device: of the training.
        precision: `float32` or `bfloat16`, of the forward passes.

    Raises:
        ValueError: a GPU without bfloat16.
    """
    if precision != "bfloat16":
        return
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError(
            f"--autocast bfloat16: {torch.cuda.get_device_name(device)} cannot compute it. "
            "Use --autocast float32."
        )
    obstacle = slow_bfloat16(device)
    if obstacle:
        logging.getLogger(__name__).warning(
            f"--autocast bfloat16: {obstacle}. Use --autocast float32."
        )


def check_compiler(device: torch.device) -> None:
    """Compiles a few operations, since torch.compile finds what it lacks only when it runs.

    Raises:
        ValueError: what is missing, and what to do without it.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"--compile: the C++ compiler {compiler!r} is not there, and torch.compile writes C++ for the "
            f"processor. Install g++, or name another in the environment variable CXX. {FALLBACK}"
        )
    try:
        probe = torch.compile(lambda wave: torch.tanh(wave) * 0.5 + wave, dynamic=False)
        probe(torch.zeros(64, device=device))
    except Exception as error:  # torch's own classes for it are not public
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(
            f"--compile: torch.compile fails on {device}: {reason.rstrip('.')}. {FALLBACK}"
        ) from error
