"""Our GAN step against a plain loop on the same nets and batches: steps a second, and the losses of each.

    python benchmarks/training_step.py [--batch-size 2] [--steps 3] [--precision float32 bfloat16]
        [--arms alternate simultaneous compiled] [--json]

`plain` is the published order of steps with two torch AdamW, nothing frozen and every graph kept; an arm is
fairseq-train's own step (its trainer, --optimizer adam, the discriminators inside the criterion) with
--gan-update alternate or simultaneous, or with --compile; further options go to all of them. Each has the
paper's generator and discriminators, the same weights to start from and the same random batches, and they
take turns, one step each, on one thread. Times are processor seconds, the median of the steps after the
first; a ratio is the median over the steps, with the smallest and the largest.
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
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer

import fairseq_resynth.tasks  # noqa: F401  registers the plugin
from fairseq_resynth.modules import losses

UNITS, CODES, SPEAKERS, SEGMENT = 100, 20, 10, 8960
ARMS = {
    "alternate": [],
    "simultaneous": ["--gan-update", "simultaneous"],
    "compiled": ["--compile"],
    "simultaneous_compiled": ["--gan-update", "simultaneous", "--compile"],
}
PLUGIN = Path(fairseq_resynth.tasks.__file__).parents[1]


def write_description(folder: Path) -> None:
    """Writes what the task reads to know its streams: a manifest of one row."""
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


def build_trainer(folder: Path, precision: str, extra: list[str]) -> Trainer:
    """Builds fairseq's trainer as fairseq-train does, with the paper's nets and settings."""
    words = (
        f"{folder} --user-dir {PLUGIN} --task unit_resynthesis --arch unit_hifigan --criterion hifigan "
        "--optimizer adam --adam-betas (0.8,0.99) --weight-decay 0.01 --lr 2e-4 --lr-scheduler fixed "
        f"--cpu --batch-size 2 --save-dir {folder} --autocast {precision}"
    )
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(parser, [*words.split(), *extra])
    )
    torch.manual_seed(0)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.lr_step(0)
    return trainer


def batch(size: int, seed: int) -> dict[str, Any]:
    """Returns a batch of random streams and noise."""
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
    """Returns a step in the published order, which returns the generator's loss."""
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
    precision: str, size: int, steps: int, arms: list[str], extra: list[str]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Steps the plain loop and every arm in turns; returns the seconds and the losses of each."""
    with tempfile.TemporaryDirectory() as folder:
        write_description(Path(folder))
        trainers = {
            name: build_trainer(Path(folder), precision, [*ARMS[name], *extra]) for name in arms
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
    precision: str, size: int, steps: int, arms: list[str], extra: list[str]
) -> list[dict[str, Any]]:
    """Returns a row an arm: its seconds, its ratio to the plain loop, the largest difference of the loss."""
    times, found = run_in_turns(precision, size, steps, arms, extra)
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
                "plain_seconds_a_step": statistics.median(times["plain"][1:]),
                "seconds_a_step": statistics.median(times[name][1:]),
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
    """Prints a line an arm and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="beside a first that warms up")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["alternate", "simultaneous"])
    parser.add_argument("--json", action="store_true")
    args, extra = parser.parse_known_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for precision in args.precision:
        for row in measure(precision, args.batch_size, args.steps, args.arms, extra):
            cells = [
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            ]
            print(json.dumps(row) if args.json else ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
