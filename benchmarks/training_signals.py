"""Which training signals pay: one generator trained equally long with each, measured on held-out speech.

    python benchmarks/training_signals.py DATA --outdir OUT [--minutes 5] [--variants paper,mpd+mrd]
        [--overrides model._name=unit_source_filter_small …]

A small generator (configs/benchmark_training_signals.yaml, changed by --overrides) is first trained on the
mel distance alone for --warm-up minutes, or read from --start; every variant continues from there for
--minutes. Time is that of the processor with one thread: the wall-clock time of an idle core, and also fair
on a busy one. Utterances of the test split, each from its own streams, are then measured with the package's
evaluation. OUT/training_signals.md and .json contain means with 95 % bootstrap intervals over utterances;
bold figures differ from the first variant by more than chance over the same utterances. `paper-again` is
`paper` with another seed: its differences are chance. The same command continues an interrupted run and
reuses what is trained and measured; with fewer --variants it writes the table of those.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from fairseq_resynth.cli.main import main as command_line
from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.data.storage.files import write_json, write_text
from fairseq_resynth.evaluation.metrics.metric import REFERENCE
from fairseq_resynth.evaluation.report.tables import number
from fairseq_resynth.evaluation.runs.evaluate import Request, evaluate
from fairseq_resynth.evaluation.runs.pairing import read_collection, read_folder
from fairseq_resynth.evaluation.runs.store import without_nan
from fairseq_resynth.inference.checkpoints import EXPECTED
from fairseq_resynth.measures.statistics import mean_interval

CONFIGS = Path(__file__).parents[1] / "configs"
METRICS = "mel,stft,f0,dnsmos,speaker"
COLUMNS = (
    "mel_l1 spectral_convergence log_magnitude ffe vde log_f0_correlation dnsmos_ovrl "
    "speaker_similarity"
).split()


# What each variant changes, as Hydra overrides. Crops of twice the length come in batches of half as many.
MEL_ALONE = ("criterion.discriminator_start=1000000000",)
VARIANTS = {
    "paper": (),
    "mel-alone": MEL_ALONE,
    "mpd+mbstft": ("criterion.discriminators='mpd,mbstft'",),
    "mpd+mrd": ("criterion.discriminators='mpd,mrd'",),
    "multi-mel": ("criterion.mel_loss=multi",),
    "paper-again": ("common.seed=2",),
    "mrd": ("criterion.discriminators=mrd",),
    "segment-17920": ("task.segment_size=17920", "dataset.batch_size=2"),
}


def _train(words: list[str], log: str) -> None:
    """Runs fairseq-hydra-train, whose time limit then counts processor time."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import fairseq.trainer
    from fairseq_cli.hydra_train import cli_main

    import fairseq_resynth.tasks  # noqa: F401  registers the plugin

    fairseq.trainer.time = SimpleNamespace(time=time.process_time)
    sys.argv = ["fairseq-hydra-train", *words]
    cli_main()


def train(
    args: argparse.Namespace,
    name: str,
    variant: Sequence[str],
    minutes: float,
    start: Path | None,
) -> Path:
    """Trains up to `minutes` in all, from a checkpoint or from nothing, and returns the last checkpoint."""
    folder = args.outdir / name
    checkpoint, record = folder / "checkpoint_last.pt", folder / "trained.json"
    words = ["--config-dir", str(CONFIGS), "--config-name", "benchmark_training_signals"]
    words += [f"task.data='{args.data}'", f"checkpoint.save_dir='{folder}'"]
    words += ["common.tensorboard_logdir=null", f"optimization.stop_time_hours={minutes / 60}"]
    words += [*args.overrides, *variant]
    if start:
        words += [f"checkpoint.restore_file='{start}'", "checkpoint.reset_optimizer=true"]
        words += ["checkpoint.reset_dataloader=true"]
    if record.is_file() and json.loads(record.read_text())["options"] == words:
        print(f"{name}: trained already", flush=True)
        return checkpoint
    checkpoint.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{name}: training", flush=True)
    log = folder / "train.log"
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(words, str(log)))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name}: the training failed, see {log}")
    write_json(record, {"options": words, "num_updates": num_updates(checkpoint)})
    return checkpoint


def num_updates(checkpoint: Path) -> int:
    """The updates of a checkpoint since its optimizer was created."""
    return int(load_checkpoint(checkpoint, EXPECTED)["optimizer_history"][-1]["num_updates"])


def seconds_trained(checkpoint: Path) -> float:
    """The training time that a checkpoint records."""
    return load_checkpoint(checkpoint, EXPECTED)["extra_state"].get("previous_training_time", 0.0)


def held_out(data: Path, folder: Path, count: int) -> Path:
    """Writes a data directory with `count` test utterances, evenly over the split."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in data.iterdir():
        lines = path.read_text().splitlines(keepends=True) if path.name.startswith("test.") else []
        head = lines[:1] if path.suffix == ".tsv" else []
        rows = lines[len(head) :]
        if lines:
            kept = [
                rows[index] for index in np.linspace(0, len(rows) - 1, count).round().astype(int)
            ]
            write_text(folder / path.name, "".join(head + kept))
        elif path.suffix == ".json":
            write_text(folder / path.name, path.read_text())
    return folder


def synthesize(name: str, checkpoint: Path, data: Path, folder: Path) -> Path:
    """Writes the test utterances from their own units, unless they exist from this checkpoint."""
    out, record = folder / "wav", folder / "synthesized.json"
    stamp = {"checkpoint": checkpoint.stat().st_mtime, "rows": (data / "test.tsv").read_text()}
    if record.is_file() and json.loads(record.read_text()) == stamp:
        return out
    words = ["--checkpoint", str(checkpoint), "--input", str(data), "--outdir", str(out)]
    if command_line(["synthesize", *words]):
        raise SystemExit(f"{name}: its speech could not be synthesized")
    write_json(record, stamp)
    return out


def measure(args: argparse.Namespace, folders: dict[str, Path], data: Path) -> Any:
    """Measures the speech of every variant against the recordings."""
    systems = {name: read_folder(folder) for name, folder in folders.items()}
    request = Request(
        systems, read_collection(str(data), "test"), args.outdir / "evaluation", metrics=METRICS
    )
    return evaluate(request).evaluation


def differences(evaluation: Any, first: str, name: str, column: Any) -> dict[str, float]:
    """The mean difference to the first variant over the same utterances, with its interval."""
    values: dict[str, dict[str, float]] = {first: {}, name: {}}
    for row in evaluation.rows:
        if row["system"] in values and row.get(column.name) is not None:
            values[row["system"]][row["reference_name"]] = row[column.name]
    both = [key for key in values[first] if key in values[name]]
    return mean_interval([values[name][key] - values[first][key] for key in both])


def table(evaluation: Any, updates: dict[str, int]) -> tuple[str, dict[str, Any]]:
    """A Markdown table, and the same figures by variant and column."""
    columns = [column for column in evaluation.columns if column.name in COLUMNS]
    arrows = {"lower": "↓", "higher": "↑", "": ""}
    heads = [f"{column.label} {arrows[column.better]}".strip() for column in columns]
    lines = [f"| variant | updates | {' | '.join(heads)} |", "|---" * (len(columns) + 2) + "|"]
    found: dict[str, Any] = {}
    for name in [REFERENCE, *updates]:
        cells = [name, str(updates.get(name, "–"))]
        found[name] = {"updates": updates.get(name)}
        for column in columns:
            figure = evaluation.summary[name]["all"].get(column.name)
            if not figure:
                cells.append("–")
                continue
            entry = {key: figure[key] for key in ("mean", "low", "high", "count")}
            mean, low, high = (number(entry[key], column) for key in ("mean", "low", "high"))
            if name != REFERENCE:
                entry["difference"] = differences(evaluation, next(iter(updates)), name, column)
                if entry["difference"]["low"] > 0 or entry["difference"]["high"] < 0:
                    mean = f"**{mean}**"
            cells.append(f"{mean} [{low}, {high}]")
            found[name][column.name] = entry
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n", found


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; an unknown variant is an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="with units, and a test split")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="training of each variant (%(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=float, default=5.0, help="minutes before the variants (%(default)s)"
    )
    parser.add_argument("--outdir", type=Path, required=True, metavar="OUT")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="%(default)s")
    parser.add_argument("--start", type=Path, metavar="CKPT", help="instead of the warm-up")
    parser.add_argument(
        "--overrides",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of every training, for Hydra",
    )
    parser.add_argument(
        "--utterances", type=int, default=48, help="number of held-out utterances (%(default)s)"
    )
    args = parser.parse_args()
    args.variants = args.variants.split(",")
    unknown = [name for name in args.variants if name not in VARIANTS]
    if unknown:
        parser.error(f"no variant is called {', '.join(unknown)}: there are {', '.join(VARIANTS)}")
    return args


def main() -> None:
    """Trains, synthesizes, measures, and writes the table."""
    args = parse_arguments()
    start = args.start or train(args, "warm-up", MEL_ALONE, args.warm_up, None)
    trained = seconds_trained(start) / 60  # from which fairseq continues to count
    data = held_out(args.data, args.outdir / "held_out", args.utterances)
    folders, updates = {}, {}
    for name in args.variants:
        checkpoint = train(args, name, VARIANTS[name], trained + args.minutes, start)
        updates[name] = num_updates(checkpoint)
        folders[name] = synthesize(name, checkpoint, data, args.outdir / name)
    text, found = table(measure(args, folders, data), updates)
    settings = {key: str(value) for key, value in vars(args).items()}
    result = without_nan({"settings": settings, "variants": found})
    write_json(args.outdir / "training_signals.json", result)
    write_text(args.outdir / "training_signals.md", text)
    print(text)


if __name__ == "__main__":
    main()
