"""Training items per second from 16-bit wav, FLAC and packed files, and with YAAPT on every crop; one run.

    python benchmarks/loader_items.py [--items 2000] [--crops 60] [--segment-size 8960] [--json]

The embedded speech at 16 kHz, crops of 8960 samples, random streams of the right lengths (the values
do not change the time). `wav`, `flac` and `pack` are what fairseq-train's loader does for an item; `yaapt` is
the item from wav and the F0 of its crop, as the original's data set computes it each time. All alternate,
in processor seconds.
"""

import argparse
import itertools
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.data.streams import read_streams
from fairseq_resynth.preparation.pack import pack_split

SPEECH = Path(__file__).resolve().parents[1] / "examples" / "asterisk" / "speech"
ROUNDS = 4


def write_data(folder: Path, kind: str, rows_wanted: int | None = None) -> Path:
    """Writes a data directory of the embedded speech, `wav` or `flac`, with random streams.

    With `rows_wanted`, as many rows as that, from the beginning again where the speech has fewer.
    """
    rng = np.random.default_rng(0)
    (folder / "wav").mkdir(parents=True)
    rows: dict[str, list[str]] = {
        "tsv": [str(folder / "wav")],
        "units": [],
        "f0": [],
        "speaker": [],
    }
    paths = sorted(SPEECH.rglob("*.flac"))
    for index, path in enumerate(
        itertools.islice(itertools.cycle(paths), rows_wanted or len(paths))
    ):
        wav, rate = soundfile.read(path, dtype="float32")
        soundfile.write(folder / "wav" / f"{index}.{kind}", wav, rate, subtype="PCM_16")
        rows["tsv"].append(f"{index}.{kind}\t{len(wav)}")
        rows["units"].append(" ".join(map(str, rng.integers(100, size=len(wav) // 320))))
        rows["f0"].append(" ".join(map(str, rng.integers(20, size=-(-len(wav) // 1280)))))
        rows["speaker"].append(path.parent.name)
    for suffix, lines in rows.items():
        (folder / f"train.{suffix}").write_text("\n".join(lines) + "\n")
    units = {"feature_type": "random", "num_clusters": 100, "unit_hop": 320}
    (folder / "units.json").write_text(json.dumps(units))
    (folder / "f0_codes.json").write_text(json.dumps({"num_codes": 20, "f0_code_hop": 1280}))
    return folder


def with_yaapt(dataset: UnitDataset, index: int) -> None:
    """Makes an item and the F0 of its crop; a crop in which YAAPT finds nothing took its time as well."""
    try:
        extract_f0(dataset[index]["wav"].numpy(), "yaapt")
    except ValueError:
        pass


def measure(
    datasets: dict[str, UnitDataset], num_items: int, num_crops: int
) -> dict[str, dict[str, float]]:
    """Returns items a processor second by each way, lowest and highest of the rounds, and the mean."""
    wav = datasets["wav"]
    order = wav.ordered_indices()
    arms = {name: (items.__getitem__, num_items // ROUNDS) for name, items in datasets.items()}
    arms["yaapt"] = (lambda index: with_yaapt(wav, index), num_crops // ROUNDS)
    rates: dict[str, list[float]] = {name: [] for name in arms}
    with_yaapt(wav, 0)  # imports
    for epoch in range(1, ROUNDS + 1):
        for items in datasets.values():
            items.set_epoch(epoch)
        for name, (make, count) in arms.items():
            start = time.process_time()
            for number in range(count):
                make(order[number % len(order)])
            rates[name].append(count / (time.process_time() - start))
    return {
        name: {"lowest": min(found), "mean": sum(found) / ROUNDS, "highest": max(found)}
        for name, found in rates.items()
    }


def main() -> None:
    """Prints the rates, in items per second and core."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--items", type=int, default=2000, help="of each kind of file (%(default)s)"
    )
    parser.add_argument("--crops", type=int, default=60, help="with YAAPT (%(default)s)")
    parser.add_argument("--segment-size", type=int, default=8960, help="samples (%(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = {kind: write_data(Path(folder) / kind, kind) for kind in ("wav", "flac")}
        data["pack"] = Path(folder) / "pack"
        pack_split(data["wav"], "train", data["pack"])
        datasets = {
            kind: UnitDataset(path, "train", read_streams(path), args.segment_size)
            for kind, path in data.items()
        }
        result = measure(datasets, args.items, args.crops)
    if args.json:
        print(json.dumps(result))
    else:
        print("items per second and core, over the rounds:")
        for name, found in result.items():
            print(f"{name:>6} {found['lowest']:8.0f} to {found['highest']:.0f}")


if __name__ == "__main__":
    main()
