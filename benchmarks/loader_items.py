"""Training items a second: pitch codes from the cache against YAAPT on every crop, one process, one run.

    python benchmarks/loader_items.py [--items 2000] [--crops 60] [--segment-size 8960] [--json]

The embedded speech as 16 kHz wavs, crops of 8960 samples, random streams of the right lengths (the
values do not change the time). `cache` is what fairseq-train's loader does for an item; `yaapt` is the
same item and the F0 of its crop, as the original's data set computes it each time. The two alternate, in
processor seconds.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from fairseq_resynth.data.f0 import extract_f0
from fairseq_resynth.data.streams import read_streams
from fairseq_resynth.data.unit_dataset import UnitDataset

SPEECH = Path(__file__).resolve().parents[1] / "examples" / "asterisk" / "speech"
ROUNDS = 4


def write_data(folder: Path) -> Path:
    """Writes a data directory of the embedded speech with random streams."""
    rng = np.random.default_rng(0)
    (folder / "wav").mkdir()
    rows: dict[str, list[str]] = {
        "tsv": [str(folder / "wav")],
        "units": [],
        "f0": [],
        "speaker": [],
    }
    for index, path in enumerate(sorted(SPEECH.rglob("*.flac"))):
        wav, rate = soundfile.read(path, dtype="float32")
        soundfile.write(folder / "wav" / f"{index}.wav", wav, rate, subtype="PCM_16")
        rows["tsv"].append(f"{index}.wav\t{len(wav)}")
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


def measure(dataset: UnitDataset, num_items: int, num_crops: int) -> dict[str, float]:
    """Returns items a processor second by either way, and their ratio."""
    order = dataset.ordered_indices()
    arms = {
        "cache": (dataset.__getitem__, num_items // ROUNDS),
        "yaapt": (lambda index: with_yaapt(dataset, index), num_crops // ROUNDS),
    }
    spent = dict.fromkeys(arms, 0.0)
    with_yaapt(dataset, 0)  # imports
    for epoch in range(1, ROUNDS + 1):
        dataset.set_epoch(epoch)
        for name, (make, count) in arms.items():
            start = time.process_time()
            for number in range(count):
                make(order[number % len(order)])
            spent[name] += time.process_time() - start
    rates = {name: arms[name][1] * ROUNDS / seconds for name, seconds in spent.items()}
    return {**rates, "cache / yaapt": rates["cache"] / rates["yaapt"]}


def main() -> None:
    """Prints the rates, in items a second a core."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=2000, help="with the cache (%(default)s)")
    parser.add_argument("--crops", type=int, default=60, help="with YAAPT (%(default)s)")
    parser.add_argument("--segment-size", type=int, default=8960, help="samples (%(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder))
        dataset = UnitDataset(data, "train", read_streams(data), args.segment_size)
        result = measure(dataset, args.items, args.crops)
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"items a second a core: {result['cache']:.0f} with the cache, {result['yaapt']:.1f} with "
            f"YAAPT on every crop; ratio {result['cache / yaapt']:.0f}"
        )


if __name__ == "__main__":
    main()
