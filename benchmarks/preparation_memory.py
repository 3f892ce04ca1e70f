"""Peak memory of `resynth f0` and `resynth quantize` on 10 and on 100 minutes of speech.

    python benchmarks/preparation_memory.py [--verb f0 quantize] [--method yaapt] [--minutes 10 100]

The embedded speech is linked as often as it takes, under other names. The peak is the child process's
ru_maxrss. Only the standard library is imported here: on Linux a child's peak begins at its parent's size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEECH = Path(__file__).resolve().parents[1] / "examples" / "asterisk" / "speech"
RESYNTH = Path(sys.executable).with_name("resynth")


def run(*arguments: object) -> tuple[float, float]:
    """Runs `resynth`; returns its peak in MB (of 2**20 bytes) and its seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [RESYNTH, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(
            f"resynth {' '.join(map(str, arguments))} failed: run it by itself to see why"
        )
    return usage.ru_maxrss / 1024, time.perf_counter() - start


def lengths_of_speech(folder: Path) -> list[tuple[str, float]]:
    """Returns (path, seconds) of each embedded file."""
    run("manifest", SPEECH, "--outdir", folder, "--valid-percent", 0, "--test-percent", 0)
    lines = (folder / "train.tsv").read_text().splitlines()[1:]
    return [(name, int(samples) / 16000) for name, samples in (line.split("\t") for line in lines)]


def link_speech(folder: Path, files: list[tuple[str, float]], minutes: float) -> Path:
    """Makes a data folder of at least that many minutes."""
    root, seconds, index = folder / "audio", 0.0, 0
    while seconds < 60 * minutes:
        name, length = files[index % len(files)]
        link = root / Path(name).parent / f"{index // len(files)}_{Path(name).name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(SPEECH / name)
        seconds, index = seconds + length, index + 1
    split = ("--valid-percent", 0, "--test-percent", 0, "--speaker-from", "parent")
    run("manifest", root, "--outdir", folder / "data", *split)
    return folder / "data"


def measure(verb: str, data: Path, kmeans: Path, method: str) -> dict[str, float]:
    """Runs one verb on one data folder."""
    if verb == "f0":
        peak, seconds = run("f0", data, "--method", method, "--workers", 1)
    else:
        if not kmeans.exists():
            run("kmeans", data, "--feature-type", "logmel", "--num-clusters", 50, "--out", kmeans)
        peak, seconds = run("quantize", data, "--feature-type", "logmel", "--kmeans", kmeans)
    return {"peak_mb": round(peak, 1), "seconds": round(seconds, 1)}


def main() -> None:
    """Prints one JSON line a verb: peaks, and how much the largest corpus needs beyond the smallest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--verb", nargs="+", default=["f0", "quantize"], choices=["f0", "quantize"])
    parser.add_argument("--method", default="yaapt", help="of f0 (default: %(default)s)")
    parser.add_argument("--minutes", nargs="+", type=float, default=[10, 100])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = lengths_of_speech(Path(folder) / "speech")
        datas = {m: link_speech(Path(folder) / f"{m:g}", files, m) for m in sorted(args.minutes)}
        for verb in args.verb:
            rows = {
                f"{minutes:g}_minutes": measure(
                    verb, data, Path(folder) / "km.safetensors", args.method
                )
                for minutes, data in datas.items()
            }
            peaks = [row["peak_mb"] for row in rows.values()]
            print(json.dumps({"verb": verb, **rows, "growth": round(peaks[-1] / peaks[0] - 1, 3)}))


if __name__ == "__main__":
    main()
