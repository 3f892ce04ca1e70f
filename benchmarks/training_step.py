"""Training steps on whatever device there is: operators per step, updates per second, memory, by arm.

    python benchmarks/training_step.py [--tiny] [--arms published,eager,graphs,compiled,simultaneous]
        [--nets paper,mel,source_filter] [--batch 16] [--segment 8960] [--precision float32,bfloat16]
        [--seconds 5] [--json FILE] [--overrides KEY=VALUE …]

`published` is a loop in the published order of steps (HiFi-GAN's and unit-hifigan's) with two fused AdamW of
torch, where nothing is frozen and every graph is kept; `published_compiled` is the same compiled. The others
are the step of a training by configs/paper_unit_hifigan.yaml in fairseq's trainer: `eager` as it is, `graphs`
with --cuda-graphs, `compiled` with --compile, `simultaneous` with --gan-update simultaneous, or two of these.
The nets are the paper's, and unit_source_filter with the multi-scale mel distance alone (`mel`) or also
against mpd and mbstft (`source_filter`); `published` exists for the paper's only.

All arms of a net have the same initial weights and random batches. A row of the output has

- operators: calls that PyTorch dispatches below autograd in one step, and launching_operators, those that do
  more than describe or reserve memory; `before` holds both as they were at commit 4d926da. A foreach call
  counts once: a GPU needs a few kernels for it, a processor one for each tensor. Compiled arms have no count.
  The counts depend on the layers, not on batch or device, and on the channels only on a processor, where Adam
  takes as many parameters together as the cache holds.
- updates_per_second, crops_per_second: by the clock on a GPU, by processor time otherwise; the median of the
  rounds. ratio: the first arm's time over this one's, median [lowest, highest] of the rounds.
- peak_gib, kernels, launches and utilization (share of the time in which a kernel runs): on a GPU.
- loss_difference: the largest relative difference of the generator's loss to that of the first arm.

--tiny has narrow layers and short crops, and ends within a minute on a processor.
"""

import argparse
import collections
import copy
import gc
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
# oneDNN keeps 1024 compiled convolutions; arms in turns have more, and would compile them in every round.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

import torch
import torch.nn.functional as F
from fairseq import tasks
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.trainer import Trainer
from fairseq.utils import move_to_cuda
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

import fairseq_resynth.tasks  # noqa: F401  registers the plugin
from fairseq_resynth.modules import losses

UNITS, CODES = 100, 20
ARMS = {
    "published": [],
    "published_compiled": [],
    "eager": [],
    "graphs": ["++task.cuda_graphs=true"],
    "compiled": ["++task.compile=true"],
    "simultaneous": ["++task.gan_update=simultaneous"],
    "simultaneous_graphs": ["++task.gan_update=simultaneous", "++task.cuda_graphs=true"],
    "simultaneous_compiled": ["++task.gan_update=simultaneous", "++task.compile=true"],
}
SOURCE_FILTER = ["model._name=unit_source_filter", "++criterion.mel_loss=multi"]
NETS = {
    "paper": [],
    "mel": [*SOURCE_FILTER, "++criterion.discriminator_start=1000000000"],
    "source_filter": [*SOURCE_FILTER, "++criterion.discriminators='mpd,mbstft'"],
}
NARROW = {
    "paper": ["++model.upsample_initial_channel=32"],
    "mel": ["++model.dim=16", "++model.intermediate_dim=32"],
    "source_filter": ["++model.dim=16", "++model.intermediate_dim=32"],
}
# (operators, launching operators) of the arm `eager` at commit 4d926da, float32 and bfloat16
BEFORE = {
    ("paper", "float32"): (9898, 6526),
    ("paper", "bfloat16"): (10969, 7597),
    ("mel", "float32"): (3011, 1760),
    ("mel", "bfloat16"): (3173, 1922),
    ("source_filter", "float32"): (10729, 7224),
    ("source_filter", "bfloat16"): (12207, 8702),
}
# operators that only describe or reserve memory, besides views
FREE = {
    "detach", "alias", "empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided",
    "is_same_size", "lift_fresh", "_unsafe_view", "resize_",
}  # fmt: skip
PLUGIN = Path(fairseq_resynth.tasks.__file__).parents[1]
CONFIGS = Path(__file__).parents[1] / "configs"
WARM_UPS = 4  # the step is recorded or compiled in the second and the third
Step = Callable[[dict[str, Any]], float]


def write_description(folder: Path, segment: int) -> None:
    """Writes a data directory with a manifest of one row, from which the task reads its streams."""
    files = {
        "train.tsv": f"{folder}\nnone.wav\t{segment}\n",
        "train.units": " ".join(["0"] * (segment // 320)) + "\n",
        "train.f0": " ".join(["0"] * (segment // 1280)) + "\n",
        "train.speaker": "speaker0\n",
        "units.json": json.dumps({"num_clusters": UNITS, "unit_hop": 320}),
        "f0_codes.json": json.dumps({"num_codes": CODES, "f0_code_hop": 1280}),
    }
    for name, text in files.items():
        (folder / name).write_text(text)


def build_trainer(folder: Path, precision: str, overrides: list[str]) -> Trainer:
    """The trainer of fairseq-hydra-train, with the paper's networks and settings unless overridden."""
    hydra_init("paper_unit_hifigan")
    paths = [f"common.user_dir={PLUGIN}", f"task.data={folder}", f"checkpoint.save_dir={folder}"]
    cpu = "false" if torch.cuda.is_available() else "true"
    device = [f"common.cpu={cpu}", "distributed_training.distributed_world_size=1"]
    precision_override = f"++task.autocast={precision}"
    with initialize_config_dir(str(CONFIGS)):
        cfg = compose("paper_unit_hifigan", [*paths, *device, precision_override, *overrides])
    add_defaults(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    torch.manual_seed(0)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.lr_step(0)
    return trainer


def batch(net: str, size: int, segment: int, seed: int) -> dict[str, Any]:
    """A batch of random streams and noise, on the GPU if there is one."""
    generator = torch.Generator().manual_seed(seed)

    def integers(limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(limit, shape, generator=generator)

    inputs = {
        "units": integers(UNITS, size, segment // 320),
        "f0_codes": integers(CODES, size, segment // 1280),
        "speaker": integers(1, size),
    }
    if net != "paper":
        f0 = 100 + 100 * torch.rand(size, segment // 80, generator=generator)
        inputs["source_f0"] = torch.stack([f0, torch.ones_like(f0)], dim=1)
    target = 0.1 * torch.randn(size, 1, segment, generator=generator)
    sample = {"id": torch.arange(size), "split": "train", "net_input": inputs, "target": target}
    return move_to_cuda(sample) if torch.cuda.is_available() else sample


def published_step(trainer: Trainer, precision: str, compiled: bool) -> Step:
    """A step in the published order on copies of the trainer's networks; it returns the generator's loss."""
    model, discriminators = copy.deepcopy((trainer.model, trainer.criterion.discriminators))
    log_mel = trainer.criterion.log_mel
    if compiled:
        model.compile(dynamic=False)
        discriminators.compile(dynamic=False)
    settings = {"lr": 2e-4, "betas": (0.8, 0.99), "weight_decay": 0.01, "fused": True}
    step_g = torch.optim.AdamW(model.parameters(), **settings)
    step_d = torch.optim.AdamW(discriminators.parameters(), **settings)
    device = next(model.parameters()).device.type

    def autocast() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def step(sample: dict[str, Any]) -> float:
        real = sample["target"]
        with autocast():
            fake = model(**sample["net_input"])
            real_scores, _ = discriminators(real)
            fake_scores, _ = discriminators(fake.detach())
            loss_d = sum(
                ((1 - r.float()) ** 2).mean() + (f.float() ** 2).mean()
                for r, f in zip(real_scores, fake_scores, strict=True)
            )
        step_d.zero_grad()
        loss_d.backward()
        step_d.step()
        with autocast():
            _, real_maps = discriminators(real)
            fake_scores, fake_maps = discriminators(fake)
            mel = losses.mel_l1(log_mel(real), log_mel(fake))
            matching = sum(
                F.l1_loss(f.float(), r.float())
                for fakes, reals in zip(fake_maps, real_maps, strict=True)
                for f, r in zip(fakes, reals, strict=True)
            )
            adversarial = sum(((1 - f.float()) ** 2).mean() for f in fake_scores)
            loss_g = 45 * mel + adversarial + 2 * matching
        step_g.zero_grad()
        loss_g.backward()
        step_g.step()
        return loss_g.item()

    return step


class OperatorCount(TorchDispatchMode):
    """Counts the operators that are dispatched inside this context, below autograd."""

    def __init__(self):
        super().__init__()
        self.counts: collections.Counter = collections.Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.counts[operator] += 1
        return operator(*args, **(kwargs or {}))

    def row(self) -> dict[str, int]:
        """{operators, launching_operators}: the second without views and those in `FREE`."""
        launching = sum(
            count
            for operator, count in self.counts.items()
            if not operator.is_view and operator._opname not in FREE
        )
        return {"operators": sum(self.counts.values()), "launching_operators": launching}


def gpu_use(step: Step, sample: dict[str, Any]) -> dict[str, Any]:
    """{kernels, launches, utilization} of a step by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        started = time.perf_counter()
        step(sample)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    events = profile.events()
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    launches = sum("Launch" in event.name for event in events)
    return {"kernels": len(kernels), "launches": launches, "utilization": round(busy / seconds, 3)}


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clock() -> float:
    """Seconds of the clock on a GPU, of this process otherwise, since other work may share the processor."""
    synchronize()
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def start_arm(
    arm: str, folder: Path, net: str, precision: str, samples: list, overrides: list[str]
) -> tuple[Step, list[float], dict[str, Any]]:
    """Builds an arm and warms it up: (its step, the losses of these updates, the first cells of its row)."""
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    trainer = build_trainer(folder, precision, [*NETS[net], *overrides, *ARMS[arm]])
    if arm.startswith("published"):
        step = published_step(trainer, precision, arm.endswith("compiled"))
    else:
        step = lambda sample: float(trainer.train_step([sample])["loss"])  # noqa: E731
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = clock()
    found = [step(samples[0])]
    cells: dict[str, Any] = {"first_update_seconds": clock() - started}
    found += [step(sample) for sample in samples[1:WARM_UPS]]
    cells["warm_up_seconds"] = clock() - started
    if torch.cuda.is_available():
        cells["peak_gib"] = (torch.cuda.max_memory_allocated() - before) / 2**30
        cells |= gpu_use(step, samples[0])
    if not arm.endswith("compiled"):
        with OperatorCount() as count:
            step(samples[0])
        cells |= count.row()
    return step, found, cells


def measure(
    net: str, precision: str, args: argparse.Namespace, report: Callable[[list], None]
) -> list[dict[str, Any]]:
    """One row for each arm; an arm that cannot run has its error instead. `report` gets all rows so far.

    On a GPU an arm is measured at once and its memory freed, so that nothing is lost when time is up; on a
    processor all arms take turns, since other work disturbs some of the rounds.
    """
    overrides = [f"++dataset.batch_size={args.batch}", f"++task.segment_size={args.segment}"]
    if args.tiny:
        narrow = ["++model.embedding_dim=8", "++criterion.discriminator_width=0.0625"]
        overrides += [*narrow, *NARROW[net]]
    overrides += args.overrides
    samples = [batch(net, args.batch, args.segment, seed) for seed in range(WARM_UPS)]
    gpu = torch.cuda.is_available()
    common = {"net": net, "precision": precision, "batch": args.batch, "segment": args.segment}
    common |= {"device": torch.cuda.get_device_name() if gpu else "cpu"}
    common |= {"torch": torch.__version__}
    rows: dict[str, dict[str, Any]] = {}
    found: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    steps: dict[str, Step] = {}
    # compiling takes longest, and perhaps longer than there is time
    arms = sorted(args.arms, key=lambda arm: arm.endswith("compiled"))
    with tempfile.TemporaryDirectory() as folder:
        write_description(Path(folder), args.segment)
        for arm in arms:
            if arm.startswith("published") and net != "paper":
                continue
            rows[arm] = {**common, "arm": arm}
            if arm == "eager" and (net, precision) in BEFORE:
                rows[arm]["before"] = BEFORE[net, precision]
            try:
                steps[arm], found[arm], cells = start_arm(
                    arm, Path(folder), net, precision, samples, overrides
                )
                rows[arm] |= cells
                if gpu:
                    times |= take_turns({arm: steps[arm]}, samples[0], args.seconds)
                    rows[arm] |= speeds(arm, times, found, args.batch)
            except Exception as error:  # the other arms are measured all the same
                rows[arm]["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            if gpu:
                steps.clear()
                gc.collect()
                torch.cuda.empty_cache()
            report(list(rows.values()))
        times |= take_turns(steps, samples[0], args.seconds)
    for arm in steps:
        rows[arm] |= speeds(arm, times, found, args.batch)
    report(list(rows.values()))
    return list(rows.values())


def speeds(
    arm: str, times: dict[str, list[float]], found: dict[str, list[float]], size: int
) -> dict[str, Any]:
    """The cells of an arm's times and losses, beside those of the first arm."""
    first = next(iter(times))
    seconds = statistics.median(times[arm])
    ratios = sorted(one / other for one, other in zip(times[first], times[arm], strict=False))
    pairs = zip(found[first], found[arm], strict=True)
    return {
        "updates_per_second": 1 / seconds,
        "crops_per_second": size / seconds,
        "ratio": [statistics.median(ratios), ratios[0], ratios[-1]],
        "loss_difference": max(abs(one / other - 1) for one, other in pairs),
    }


def take_turns(steps: dict[str, Step], sample: Any, seconds: float) -> dict[str, list[float]]:
    """The seconds of an update of each arm in each round, for that many seconds of the clock per arm."""
    times: dict[str, list[float]] = {arm: [] for arm in steps}
    number = 10 if torch.cuda.is_available() else 1  # updates before the clock is read
    end = time.monotonic() + seconds * len(steps)
    while steps and (time.monotonic() < end or len(times[next(iter(steps))]) < 2):
        for arm, step in steps.items():
            started = clock()
            for _ in range(number):
                step(sample)
            times[arm].append((clock() - started) / number)
    return times


def main() -> None:
    """Prints one line for each net, precision and arm, and writes all to --json as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    gpu = torch.cuda.is_available()

    def names(choices: Any) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            unknown = set(text.split(",")) - set(choices)
            if unknown:
                raise argparse.ArgumentTypeError(f"{unknown}: expected some of {list(choices)}")
            return text.split(",")

        return parse

    default_arms = (
        "published,eager,graphs,compiled,simultaneous" if gpu else "published,eager,simultaneous"
    )
    parser.add_argument("--arms", type=names(ARMS), default=default_arms)
    parser.add_argument("--nets", type=names(NETS), help="default: paper; with --tiny all")
    parser.add_argument("--precision", type=names(["float32", "bfloat16"]))
    parser.add_argument("--batch", type=int, help="crops per batch; default: 16, with --tiny 2")
    parser.add_argument("--segment", type=int, help="samples; default: 8960, with --tiny 2560")
    parser.add_argument("--seconds", type=float, help="per arm; default: 5, with --tiny 0.5")
    parser.add_argument("--tiny", action="store_true", default=os.environ.get("TINY") == "1")
    parser.add_argument("--json", type=Path, help="file to write all rows to")
    parser.add_argument("--overrides", nargs="+", default=[], help="for the training, as in Hydra")
    args = parser.parse_args()
    args.nets = args.nets or (list(NETS) if args.tiny else ["paper"])
    args.precision = args.precision or ["bfloat16" if gpu else "float32"]
    args.batch = args.batch or (2 if args.tiny else 16)
    args.segment = args.segment or (2560 if args.tiny else 8960)
    args.seconds = (0.5 if args.tiny else 5.0) if args.seconds is None else args.seconds
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows: list[dict[str, Any]] = []
    for net in args.nets:
        for precision in args.precision:

            def report(new: list[dict[str, Any]], earlier: tuple = tuple(rows)) -> None:
                if args.json:
                    args.json.write_text(json.dumps([*earlier, *new], indent=1) + "\n")

            for row in measure(net, precision, args, report):
                rows.append(row)
                cells = (
                    f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in row.items()
                )
                print(", ".join(cells), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
