"""The discriminators and optimizers of speech-resynthesis as a fairseq checkpoint, to continue training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.interop.published_checkpoints import (
    Published,
    build,
    load_weights,
    read_published,
)
from fairseq_resynth.interop.weight_names import discriminator_name, parameter_names
from fairseq_resynth.modules.architectures import UnitHifiganSizes
from fairseq_resynth.modules.discriminators.base import Discriminators
from fairseq_resynth.modules.discriminators.families import HIFIGAN, build_discriminators
from fairseq_resynth.modules.discriminators.waveforms import PERIOD_CHANNELS

WHAT = "a file of discriminators and optimizers (do_*)"
KEYS = ("mpd", "msd", "optim_g", "optim_d", "steps", "epoch")


def write_training_checkpoint(
    path: str | Path, config: Path | None, bundle: Bundle, outfile: str | Path
) -> dict[str, Any]:
    """Writes the checkpoint for `fairseq-train --task unit_resynthesis … --restore-file OUTFILE`.

    `bundle` is what the generator at `path` was imported as, with its configuration `config`. Raises
    FileNotFoundError if there is no `do_*` beside it, and ValueError if that is refused, truncated, or does
    not belong to the generator.

    Returns:
        {"num_updates", "epoch", "options": those of fairseq-train, without --restore-file}.
    """
    if bundle.content_vqvae is not None:
        raise ValueError(
            "--for-training: training cannot continue for a model that contains a content VQ-VAE."
        )
    if bundle.generator is None:
        raise ValueError("--for-training: an F0 quantizer has no discriminators.")
    published = read_published(path, config)
    source = published.source
    path = source.with_name(source.name.replace("g_", "do_", 1))
    if path == source or not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, and without the discriminators and optimizers of {source.name} training "
            "cannot continue. Leave out --for-training to import the generator alone."
        )
    state = load_checkpoint(path, WHAT)
    if missing := [key for key in KEYS if key not in state]:
        raise ValueError(f"{path} is not {WHAT}: it lacks {', '.join(missing)}.")
    try:
        checkpoint, options = _convert(published, bundle, state, path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is not {WHAT}: {type(error).__name__} {one_line(error)}"
        ) from error
    with atomic_path(outfile) as temporary, temporary.open("wb") as stream:
        torch.save(checkpoint, stream)  # to a path, it would store the temporary name
    return {
        "num_updates": int(state["steps"]),
        "epoch": int(state["epoch"]) + 1,
        "options": options,
    }


def _convert(
    published: Published, bundle: Bundle, state: dict[str, Any], path: Path
) -> tuple[dict[str, Any], list[str]]:
    """fairseq's checkpoint, and the options of fairseq-train that build the same networks."""
    generator, names = build(published, bundle.model, bundle.streams)
    discriminators, names_d, width = _discriminators(state, path)
    moments = _moments(state["optim_g"], {"": published.weights}, path)
    adam = _fitted(moments, generator, names, path)
    moments = _moments(state["optim_d"], {"msd.": state["msd"], "mpd.": state["mpd"]}, path)
    adam += _fitted(moments, discriminators, names_d, path)
    group, streams = state["optim_g"]["param_groups"][0], bundle.streams.to_dict()
    config, options = _configuration(bundle, width, group)
    criterion = _prefixed("discriminators.", discriminators.state_dict())
    history = {
        "criterion_name": "HifiganCriterion",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {"lr": group["lr"]},
        "num_updates": int(state["steps"]),
    }
    epoch = int(state["epoch"]) + 1
    iterator = {"version": 2, "iterations_in_epoch": 0, "shuffle": True, "epoch": epoch}
    kept = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
    checkpoint = {
        "args": None,
        "cfg": config,
        "model": _prefixed("unit_generator.", generator.state_dict()),
        "criterion": {**criterion, "_extra_state": streams},
        "optimizer_history": [history],
        "task_state": {"streams": streams},
        "extra_state": {"train_iterator": iterator, "val_loss": None},
        "last_optimizer_state": {
            "state": {index: entry for index, entry in enumerate(adam) if entry},
            # The one Adam holds the generator's parameters and then the discriminators'.
            "param_groups": [{**kept, "amsgrad": False, "params": list(range(len(adam)))}],
        },
    }
    return checkpoint, options


def _prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _discriminators(
    state: dict[str, Any], path: Path
) -> tuple[Discriminators, dict[str, str], float]:
    """The discriminators, the published name of each of our weights, and their width."""
    names, weights = {}, {}
    for group in ("msd", "mpd"):
        for name, value in state[group].items():
            ours = discriminator_name(group, name, state[group])
            names[ours], weights[ours] = f"{group}.{name}", value
    first = weights.get("periods.0.convs.0.bias")
    if not isinstance(first, Tensor):
        raise ValueError(f"{path} holds no HiFi-GAN discriminators.")
    width = len(first) / PERIOD_CHANNELS[0]
    discriminators = build_discriminators(HIFIGAN, width)
    load_weights(discriminators, weights, f"{path} holds no HiFi-GAN discriminators")
    return discriminators, names, width


def _moments(
    optimizer: dict[str, Any], modules: dict[str, dict[str, Tensor]], path: Path
) -> dict[str, dict[str, Any]]:
    """The state of Adam by published name; it numbers parameters in the order of the state dicts."""
    order = [f"{p}{name}" for p, weights in modules.items() for name in parameter_names(weights)]
    count = len(optimizer["param_groups"][0]["params"])
    if count != len(order):  # a frozen F0 quantizer may have been left out of the optimizer
        order = [name for name in order if not name.startswith("quantizer.")]
    if count != len(order):
        raise ValueError(
            f"{path} has an optimizer of {count} parameters, its networks have {len(order)}."
        )
    return {name: optimizer["state"].get(index, {}) for index, name in enumerate(order)}


def _fitted(
    moments: dict[str, dict[str, Any]], module: torch.nn.Module, names: dict[str, str], path: Path
) -> list[dict[str, Any]]:
    """The state of Adam for each parameter, in the order of the module."""
    fitted: list[dict[str, Any]] = []
    for ours, parameter in module.named_parameters():
        found, entry = moments[names[ours]], {}
        for key in ("exp_avg", "exp_avg_sq") if found else ():
            value = found[key][: len(parameter)]  # a speaker table may have been cut
            if value.shape != parameter.shape:
                raise ValueError(
                    f"{path} does not belong to the generator: the optimizer's state of {names[ours]} is "
                    f"{tuple(found[key].shape)}, the weight {tuple(parameter.shape)}."
                )
            entry |= {"step": int(found["step"]), key: value.clone()}
        fitted.append(entry)
    return fitted


def _configuration(
    bundle: Bundle, width: float, group: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The `cfg` of the checkpoint, and the options that fairseq-train needs to build the same networks."""
    from fairseq_resynth.tasks.configuration import training_configuration  # loads fairseq

    model: UnitHifiganSizes = bundle.model
    betas = ",".join(f"{beta:g}" for beta in group["betas"])
    chosen = [
        *["--task", "unit_resynthesis", "--arch", "unit_hifigan", "--criterion", "hifigan"],
        *["--embedding-dim", model.embedding_dim, "--upsample-rates", model.upsample_rates],
        *["--upsample-kernel-sizes", model.upsample_kernel_sizes],
        *["--upsample-initial-channel", model.upsample_initial_channel],
        *["--resblock-kernel-sizes", model.resblock_kernel_sizes],
        *["--resblock-dilation-sizes", model.resblock_dilation_sizes],
        *["--optimizer", "adam", "--adam-betas", f"({betas})", "--lr-scheduler", "fixed"],
        *["--weight-decay", group["weight_decay"], "--lr", group.get("initial_lr", group["lr"])],
        *["--force-anneal", 2, "--lr-shrink", 0.999],
    ]
    if width != 1:
        chosen += ["--discriminator-width", width]
    if model.duration_predictor:
        chosen += ["--duration-predictor", "--duration-hidden-dim", model.duration_hidden_dim]
        chosen += ["--duration-kernel-size", model.duration_kernel_size]
        chosen += ["--duration-dropout", model.duration_dropout]
        chosen += ["--duration-condition", model.duration_condition]
    words = [str(word) for word in chosen]
    return training_configuration(words), words
