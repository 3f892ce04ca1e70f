"""Checks of a GAN training's settings and machine, before it starts."""

import logging
import os
import shutil

import numpy as np
import torch
from torch import nn

from fairseq_resynth.modules.generators.inference import slow_bfloat16

ORDERS = ("alternate", "simultaneous")  # of the two steps of an update
DDP_BACKENDS = ("legacy_ddp", "no_c10d", "pytorch_ddp", "c10d")
WITH_HOOKS = ("pytorch_ddp", "c10d")  # they average gradients in hooks of the backward pass
UNCOMPILED = "Leave --compile out: the training is the same, only uncompiled."
WITHOUT_GRAPHS = (
    "Leave --cuda-graphs out: the training is the same, only with more time between kernels."
)
logger = logging.getLogger(__name__)


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
        logger.warning(message, obstacle)


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


def check_graphs(cfg, device: torch.device) -> None:
    """Raises ValueError if the step cannot be recorded as CUDA graphs with these settings on this device."""
    obstacle = None
    if device.type != "cuda":
        obstacle = (
            "--cpu was given" if torch.cuda.is_available() else "torch finds no CUDA device here"
        )
    elif cfg.compile:
        obstacle = "it cannot be combined with --compile, which would compile while it is recorded"
    elif cfg.distributed_world_size > 1 and cfg.ddp_backend in WITH_HOOKS:
        obstacle = (
            f"--ddp-backend {cfg.ddp_backend} averages gradients in hooks of the backward pass, which a "
            "recorded step does not call; use --ddp-backend legacy_ddp"
        )
    if obstacle:
        raise ValueError(f"--cuda-graphs: {obstacle}. {WITHOUT_GRAPHS}")


def check_recordable(model: nn.Module) -> None:
    """Raises ValueError if a step of the model waits for a GPU's values, or if its gradients have hooks."""
    obstacle = getattr(model, "unrecordable", "")
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            obstacle = f"the gradient of {name} has a hook, which a recorded step does not call"
    if obstacle:
        raise ValueError(f"--cuda-graphs: {obstacle}. {WITHOUT_GRAPHS}")


def check_shapes(lengths: np.ndarray, segment_size: int, batch_size: int, option: str) -> None:
    """Raises ValueError if most batches would have a shape of their own, and logs how many have one.

    Args:
        lengths: samples of each utterance of the training split.
        segment_size: samples of a crop.
        batch_size: utterances per batch.
        option: the option that needs equal shapes.
    """
    short = int((lengths < segment_size).sum())
    others = 1 - (1 - short / max(len(lengths), 1)) ** batch_size
    if not short:
        return
    what = (
        f"{option}: {short} of {len(lengths)} utterances are shorter than --segment-size {segment_size}, so "
        f"about {100 * others:.0f} % of the batches of {batch_size} have a shape of their own"
    )
    if others > 0.5:
        raise ValueError(
            f"{what}. Leave {option} out, take the short utterances out of train.tsv, or use a smaller "
            "--segment-size."
        )
    logger.warning("%s and run as without it.", what)
