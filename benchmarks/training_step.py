"""Our GAN step compared with a plain loop on the same networks and batches: seconds per step, and the losses.

    python benchmarks/training_step.py [--batch-size 2] [--steps 3] [--precision float32 bfloat16]
        [--arms alternate simultaneous compiled] [--overrides KEY=VALUE …] [--json]

`plain` is the published order of steps with two torch AdamW, where nothing is frozen and every graph is kept.
An arm is the step of a training by configs/paper_unit_hifigan.yaml (fairseq's trainer, the discriminators
inside the criterion), with task.gan_update alternate or simultaneous, or with task.compile; --overrides apply
to all arms. All have the paper's generator and discriminators, the same initial weights and the same random
batches, and they take turns, one step each, on one thread. Times are processor seconds, the median of the
steps after the first; a ratio is the median over the steps, with the smallest and the largest.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.trainer import Trainer
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import fairseq_resynth.tasks  # noqa: F401  registers the plugin
from fairseq_resynth.modules import losses

UNITS, CODES, SPEAKERS, SEGMENT = 100, 20, 10, 8960
ARMS = {
    "alternate": [],
    "simultaneous": ["++task.gan_update=simultaneous"],
    "compiled": ["++task.compile=true"],
    "simultaneous_compiled": ["++task.gan_update=simultaneous", "++task.compile=true"],
}
PLUGIN = Path(fairseq_resynth.tasks.__file__).parents[1]
CONFIGS = Path(__file__).parents[1] / "configs"


def write_description(folder: Path) -> None:
    """Writes a data directory with a manifest of one row, from which the task reads its streams."""
    files = {
        "train.tsv": f"{folder}\nnone.wav\t{SEGMENT}\n",
        "train.units": " ".join(["0"] * (SEGMENT // 320)) + "\n",
        "train.f0": " ".join(["0"] * (SEGMENT // 1280)) + "\n",
        "train.speaker": "speaker0\n",
        "units.json": json.dumps({"num_clusters": UNITS, "unit_hop": 320}),
        "f0_codes.json": json.dumps({"num_codes": CODES, "f0_code_hop": 1280}),
    }
    for name, text in files.items():
        (folder / name).write_text(text)


def build_trainer(folder: Path, precision: str, overrides: list[str]) -> Trainer:
    """The trainer of fairseq-hydra-train, with the paper's networks and settings."""
    hydra_init("paper_unit_hifigan")
    paths = [f"common.user_dir={PLUGIN}", f"task.data={folder}", f"checkpoint.save_dir={folder}"]
    device = ["common.cpu=true", f"++task.autocast={precision}"]
    with initialize_config_dir(str(CONFIGS)):
        cfg = compose("paper_unit_hifigan", [*paths, *device, *overrides])
    add_defaults(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    torch.manual_seed(0)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.lr_step(0)
    return trainer


def batch(size: int, seed: int) -> dict[str, Any]:
    """A batch of random streams and noise."""
    generator = torch.Generator().manual_seed(seed)

    def integers(limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(limit, shape, generator=generator)

    inputs = {
        "units": integers(UNITS, size, SEGMENT // 320),
        "f0_codes": integers(CODES, size, SEGMENT // 1280),
        "speaker": integers(1, size),
    }
    target = 0.1 * torch.randn(size, 1, SEGMENT, generator=generator)
    return {"id": torch.arange(size), "net_input": inputs, "target": target}


def plain_step(model, discriminators, log_mel, precision: str) -> Callable[[dict[str, Any]], float]:
    """A step in the published order, which returns the loss of the generator."""
    settings = {"lr": 2e-4, "betas": (0.8, 0.99), "weight_decay": 0.01}
    step_g = torch.optim.AdamW(model.parameters(), **settings)
    step_d = torch.optim.AdamW(discriminators.parameters(), **settings)

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")

    def step(sample: dict[str, Any]) -> float:
        real = sample["target"]
        with autocast():
            fake = model(**sample["net_input"])
            real_scores, _ = discriminators(real)
            fake_scores, _ = discriminators(fake.detach())
            loss_d = losses.discriminator_loss(real_scores, fake_scores)
        step_d.zero_grad()
        loss_d.backward()
        step_d.step()
        with autocast():
            _, real_maps = discriminators(real)
            fake_scores, fake_maps = discriminators(fake)
            mel = losses.mel_l1(log_mel(real), log_mel(fake))
            matching = losses.feature_matching_loss(real_maps, fake_maps)
            loss_g = 45 * mel + losses.generator_loss(fake_scores) + 2 * matching
        step_g.zero_grad()
        loss_g.backward()
        step_g.step()
        return loss_g.item()

    return step


def run_in_turns(
    precision: str, size: int, steps: int, arms: list[str], overrides: list[str]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Steps the plain loop and every arm in turn; returns the seconds and the losses of each."""
    with tempfile.TemporaryDirectory() as folder:
        write_description(Path(folder))
        trainers = {
            name: build_trainer(Path(folder), precision, [*ARMS[name], *overrides]) for name in arms
        }
        first = trainers[arms[0]]
        nets = copy.deepcopy((first.model, first.criterion.discriminators))
        run = {"plain": plain_step(*nets, first.criterion.log_mel, precision)}
        for name, trainer in trainers.items():
            run[name] = lambda sample, trainer=trainer: trainer.train_step([sample])["loss"]
        times: dict[str, list[float]] = {name: [] for name in run}
        found: dict[str, list[float]] = {name: [] for name in run}
        for number in range(steps + 1):
            sample = batch(size, number)
            for name, step in run.items():
                start = time.process_time()
                found[name].append(float(step(sample)))
                times[name].append(time.process_time() - start)
    return times, found


def measure(
    precision: str, size: int, steps: int, arms: list[str], overrides: list[str]
) -> list[dict[str, Any]]:
    """One row per arm: its seconds, its ratio to the plain loop, the largest difference of the loss."""
    times, found = run_in_turns(precision, size, steps, arms, overrides)
    rows = []
    for name in arms:
        pairs = zip(times["plain"][1:], times[name][1:], strict=True)
        ratios = sorted(plain / ours for plain, ours in pairs)
        losses_of_both = zip(found["plain"], found[name], strict=True)
        rows.append(
            {
                "precision": precision,
                "batch_size": size,
                "arm": name,
                "plain_seconds_per_step": statistics.median(times["plain"][1:]),
                "seconds_per_step": statistics.median(times[name][1:]),
                "first_step_seconds": times[name][0],
                "arm / plain": statistics.median(ratios),
                "smallest": ratios[0],
                "largest": ratios[-1],
                "largest_loss_difference": max(
                    abs(one / other - 1) for one, other in losses_of_both
                ),
                "steps": steps + 1,
            }
        )
    return rows


def main() -> None:
    """Prints one line per arm and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="after a first one that warms up")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["alternate", "simultaneous"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--overrides", nargs="+", default=[], help="for the training, as in Hydra")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for precision in args.precision:
        for row in measure(precision, args.batch_size, args.steps, args.arms, args.overrides):
            cells = [
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            ]
            print(json.dumps(row) if args.json else ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
