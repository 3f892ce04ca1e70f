"""Seconds and memory of loading a million rows, and what a worker process adds by reading them.

    python benchmarks/manifest_rows.py [--rows 1000000] [--json]

Rows of 1.3 to 3.8 s with 500 units, 20 pitch codes and 7 000 speakers, without audio. Each step's processor
seconds, and the peak of resident memory after it, in MB of 2**20 bytes over what the imports had taken. Then
a forked worker crops every hundredth row: what it had to copy is its private memory, which stays small
when rows are arrays.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")


def write_rows(folder: Path, rows: int) -> None:
    """Writes a data directory without its audio."""
    draw = random.Random(0)
    names = ("tsv", "units", "f0", "speaker")
    files = {name: (folder / f"train.{name}").open("w") for name in names}
    files["tsv"].write(f"{folder}\n")
    for row in range(rows):
        samples, offset = draw.randrange(20000, 60000), draw.randrange(400)
        units = ((offset + 7 * i * i) % 500 for i in range(samples // 320))
        codes = ((offset + i * i) % 20 for i in range(-(-samples // 1280)))
        files["tsv"].write(f"{row % 7000:04d}/book_{row // 7000:05d}/{row:08d}.flac\t{samples}\n")
        files["units"].write(" ".join(map(str, units)) + "\n")
        files["f0"].write(" ".join(map(str, codes)) + "\n")
        files["speaker"].write(f"speaker_{row % 7000:04d}\n")
    for file in files.values():
        file.close()
    (folder / "units.json").write_text(json.dumps({"num_clusters": 500, "unit_hop": 320}))
    (folder / "f0_codes.json").write_text(json.dumps({"num_codes": 20, "f0_code_hop": 1280}))


def peak() -> float:
    """Returns the peak of resident memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def private_megabytes() -> float:
    """Returns the memory that no other process shares, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (fields["Private_Dirty"] + fields["Private_Clean"]) / 1024


def worker_growth(dataset: Any) -> float:
    """Forks, reads every hundredth row in the child, and returns how far its private memory grew."""
    receive, send = os.pipe()
    if not (child := os.fork()):
        before = private_megabytes()
        for row in range(0, len(dataset), 100):
            dataset[row], dataset.manifest.paths[row]
        os.write(send, f"{private_megabytes() - before:.1f}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(receive, 100))


def measure(folder: Path) -> dict[str, Any]:
    """Loads the directory step by step."""
    from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
    from fairseq_resynth.data.manifest import read_manifest
    from fairseq_resynth.data.streams import read_streams

    imports, result = peak(), {}

    def step(name: str, load: Callable[[], Any]) -> Any:
        start = time.process_time()
        loaded = load()
        seconds = round(time.process_time() - start, 2)
        result[name] = {"seconds": seconds, "peak_mb": round(peak() - imports)}
        return loaded

    manifest = step("manifest", lambda: read_manifest(folder / "train.tsv"))
    del manifest
    streams = step("streams", lambda: read_streams(folder))
    dataset = step("data set", lambda: UnitDataset(folder, "train", streams, 8960, load_wav=False))
    step("an epoch's batches", lambda: batches(dataset))
    return {**result, "worker_private_mb": worker_growth(dataset), "imports_mb": round(imports)}


def batches(dataset: Any) -> list:
    """Orders an epoch and divides it, as fairseq's iterator does."""
    return dataset.batch_by_size(dataset.ordered_indices(), max_sentences=16)


def main() -> None:
    """Prints seconds and memory of each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), args.rows)
        result = measure(Path(folder))
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        text = (
            "{seconds:6.2f} s, {peak_mb} MB".format(**value) if isinstance(value, dict) else value
        )
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
