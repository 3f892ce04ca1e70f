"""The pause between two epochs of a training, beside fairseq's own loading; one run.

    python benchmarks/epoch_boundary.py [--workers 4] [--updates 20] [--epochs 6] [--rounds 1]
        [--batch-size 2] [--arms ours fairseq] [--json]

`fairseq-train` on crops of the embedded speech, with a tiny generator and tiny discriminators, on the GPU
where there is one. `ours` loads by the plugin's workers, which stay; `fairseq` by fairseq's own
EpochBatchIterator, as a task without an iterator of its own does. The arms alternate. A normal update is the
median of the times from the end of an update to the end of the next one inside an epoch; the boundary is that
time from the last update of an epoch to the first one of the next: its mean, median, smallest and largest.
The mean counts, since fairseq's old workers are waited for whenever Python collects garbage.
"""

import argparse
import contextlib
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer
from fairseq_cli.train import main as train
from loader_items import write_data

import fairseq_resynth.tasks  # noqa: F401  registers the plugin
from fairseq_resynth.tasks.utterances import UtteranceTask

PLUGIN = Path(fairseq_resynth.tasks.__file__).parents[1]
SETTINGS = (
    "--task unit_resynthesis --arch unit_hifigan --embedding-dim 8 --upsample-initial-channel 32 "
    "--resblock-kernel-sizes 3 --resblock-dilation-sizes 1,3 --criterion hifigan "
    "--discriminator-width 0.0625 --optimizer adam --lr 2e-4 --lr-scheduler fixed --eval-audio 0 "
    "--disable-validation --no-save --log-format none --segment-size 2560"
).split()
LOADING = {
    "ours": UtteranceTask.get_batch_iterator,
    "fairseq": lambda task, dataset, **settings: FairseqTask.get_batch_iterator(
        task, dataset, **settings
    ),
}


@contextlib.contextmanager
def replaced(owner: type, name: str, value):
    """A context in which an attribute of a class has another value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def update_times(data: Path, arm: str, args: argparse.Namespace) -> list[float]:
    """Trains, and returns the time of the end of each update in seconds."""
    ends: list[float] = []
    step = Trainer.train_step

    def timed_step(trainer, samples):
        result = step(trainer, samples)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        return result

    arguments = [str(data), "--user-dir", str(PLUGIN), *SETTINGS]
    arguments += ["--num-workers", str(args.workers), "--batch-size", str(args.batch_size)]
    arguments += ["--max-epoch", str(args.epochs), "--save-dir", str(data / "checkpoints")]
    arguments += [] if torch.cuda.is_available() else ["--cpu"]
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    with (
        replaced(Trainer, "train_step", timed_step),
        replaced(UtteranceTask, "get_batch_iterator", LOADING[arm]),
    ):
        train(convert_namespace_to_omegaconf(parsed))
    return ends


def pauses(ends: list[float], updates: int) -> tuple[list[float], list[float]]:
    """Splits the times between updates into those inside epochs and those over a boundary."""
    inside, over = [], []
    for index, (before, after) in enumerate(zip(ends, ends[1:], strict=False), start=1):
        (inside if index % updates else over).append(after - before)
    return inside, over


def main() -> None:
    """Prints the figures of both arms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=4, help="loader processes (%(default)s)")
    parser.add_argument("--updates", type=int, default=20, help="per epoch (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of each round (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=2, help="crops (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of all arms (%(default)s)")
    parser.add_argument("--arms", nargs="+", choices=LOADING, default=list(LOADING))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, tuple[list, list]] = {arm: ([], []) for arm in args.arms}
    with tempfile.TemporaryDirectory() as folder:
        rows = args.updates * args.batch_size
        data = write_data(Path(folder) / "data", "wav", rows)
        for _ in range(args.rounds):
            for arm in args.arms:
                for total, part in zip(
                    found[arm], pauses(update_times(data, arm, args), args.updates), strict=True
                ):
                    total += part
    results = {}
    for arm, (inside, over) in found.items():
        update = statistics.median(inside)
        results[arm] = {
            "update": update,
            "boundary": statistics.mean(over),
            "ratio": statistics.mean(over) / update,
            "median": statistics.median(over) / update,
            "lowest": min(over) / update,
            "highest": max(over) / update,
        }
    if args.json:
        print(json.dumps(results))
        return
    for arm, row in results.items():
        print(
            f"{arm:>8}: update {1e3 * row['update']:.0f} ms, boundary {1e3 * row['boundary']:.0f} ms, "
            f"{row['ratio']:.2f} updates (median {row['median']:.2f}, {row['lowest']:.2f} to "
            f"{row['highest']:.2f})"
        )


if __name__ == "__main__":
    main()
