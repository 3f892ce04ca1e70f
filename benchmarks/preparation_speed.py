"""Hours of speech per hour of `resynth f0` by method and workers, of `quantize` and of `pack`.

    python benchmarks/preparation_speed.py [--minutes 6] [--rounds 2] [--methods yaapt dio] [--workers 1 2]
        [--hf FOLDER --layer L]      # adds quantize with a transformers encoder, on --hf-minutes

Runs alternate, and the same command on finished work, which costs what starting costs, is taken off. Wall
time depends on who else wants the cores, so processor time is given too: what it grows by with more workers
can never be linear.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from preparation_memory import RESYNTH, lengths_of_speech, link_speech

PR_SET_CHILD_SUBREAPER = 36  # of Linux
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def adopt_orphans() -> None:
    """Makes this process the parent of what its children leave behind: their workers' time counts too."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def timed(*arguments: object) -> tuple[float, float]:
    """Runs `resynth`; returns wall and processor seconds, those of its workers included."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if subprocess.call([RESYNTH, *map(str, arguments)], **QUIET):
        raise SystemExit(f"resynth {' '.join(map(str, arguments))} failed: run it by itself")
    wall = time.perf_counter() - start
    with contextlib.suppress(ChildProcessError):  # none left
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(data: Path, made: list[Path], command: list[object]) -> tuple[float, float]:
    """Runs a verb from nothing and again on its result; returns the differences of both times."""
    for path in made:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    first, again = timed(*command), timed(*command)
    return first[0] - again[0], first[1] - again[1]


def plans(args: argparse.Namespace, folder: Path, data: Path) -> dict[str, tuple]:
    """Returns by name the minutes, what to delete first, and the command."""
    kmeans, packed = folder / "km.safetensors", folder / "packed"
    timed("kmeans", data, "--feature-type", "logmel", "--num-clusters", 100, "--out", kmeans)
    units = [data / "train.units", data / "units.json"]
    found: dict[str, tuple] = {}
    for method in args.methods:
        for workers in args.workers:
            command = ["f0", data, "--method", method, "--workers", workers]
            name = f"f0 {method}, {workers} workers"
            found[name] = (args.minutes, [data / "f0"], [*command, "--accept-unvoiced"])
    found["quantize logmel"] = (args.minutes, units, ["quantize", data, "--kmeans", kmeans])
    command = ["pack", data, "--outdir", packed, "--workers", 1]
    found["pack"] = (args.minutes, [packed], command)
    if args.hf:
        few, kmeans = link_speech(folder / "hf", args.files, args.hf_minutes), folder / "hf.st"
        options = ["--feature-type", "hf", "--content-checkpoint", args.hf, "--layer", args.layer]
        timed("kmeans", few, *options, "--num-clusters", 50, "--out", kmeans)
        made = [few / "train.units", few / "units.json"]
        command = ["quantize", few, *options, "--kmeans", kmeans]
        found["quantize hf"] = (args.hf_minutes, made, command)
    return found


def main() -> None:
    """Prints one JSON line per plan: hours of speech per hour of wall and of processor time, by round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6, help="of speech (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--methods", nargs="*", default=["yaapt", "dio"], help="of f0")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="of f0")
    parser.add_argument("--hf", help="folder of a transformers encoder")
    parser.add_argument("--layer", type=int, default=6, help="of it (%(default)s)")
    parser.add_argument("--hf-minutes", type=float, default=1, help="of speech (%(default)s)")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args.files = lengths_of_speech(folder / "speech")
        data = link_speech(folder / "corpus", args.files, args.minutes)
        todo = plans(args, folder, data)
        rates: dict[str, list] = {name: [] for name in todo}
        for _ in range(args.rounds):
            for name, (minutes, made, command) in todo.items():
                seconds = measure(data, made, command)
                rates[name].append([round(60 * minutes / each) for each in seconds])
                print(f"{name}: {rates[name][-1]}", file=sys.stderr, flush=True)
    for name, found in rates.items():
        wall, processor = zip(*found, strict=True)
        print(json.dumps({"what": name, "an_hour_of_wall": wall, "an_hour_of_core": processor}))


if __name__ == "__main__":
    main()
