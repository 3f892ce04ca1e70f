"""Processor seconds until `resynth` is ready: `resynth --help`, and `resynth synthesize` speaking 160 ms.

    python benchmarks/start_up.py [--against FOLDER] [--bundle BUNDLE] [--rounds 5] [--json]

Each command runs in a new process. FOLDER is another checkout of this repository, an older one for example
(`git worktree add FOLDER COMMIT`); its commands alternate with those of this checkout, and the ratio of the
least times is printed. `import torch` is the floor of every command that computes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
BUNDLE = HERE / "examples" / "asterisk" / "bundle"
MAIN = ["-m", "fairseq_resynth.cli.main"]


def run(checkout: Path, arguments: list[str]) -> tuple[float, str]:
    """Runs Python on a checkout; returns (user and system seconds, standard output)."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=checkout
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise ValueError(f"{checkout}: {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def commands(checkout: Path, bundle: Path, folder: Path) -> dict[str, list[str]]:
    """The measured commands by name, with the options of that checkout."""
    _, usage = run(checkout, [*MAIN, "synthesize", "--help"])
    option = "--bundle" if "--bundle" in usage else "--path"  # its name before version 0.2
    speak = ["synthesize", option, str(bundle), "--input", str(folder / "units.txt"), "--outdir"]
    return {
        "import torch": ["-c", "import torch"],
        "resynth --help": [*MAIN, "--help"],
        "resynth synthesize": [*MAIN, *speak],
    }


def write_units(bundle: Path, folder: Path) -> None:
    """Writes 160 ms of streams that any bundle can speak."""
    streams = json.loads((bundle / "config.json").read_text())["streams"]
    (folder / "units.txt").write_text("a|0 0 1 1 2 2 3 3\n")
    (folder / "units.f0").write_text("0 0 0 0 0 0 0 0\n")
    if streams["speakers"]:
        (folder / "units.speaker").write_text(streams["speakers"][0] + "\n")


def measure(checkouts: list[Path], bundle: Path, rounds: int) -> dict[str, list[float]]:
    """The least seconds of each command, one figure per checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_units(bundle, folder)
        asked = [commands(checkout, bundle, folder) for checkout in checkouts]
        seconds = {command: [float("inf")] * len(checkouts) for command in asked[0]}
        for turn in range(rounds):
            for command, least in seconds.items():
                for place, checkout in enumerate(checkouts):
                    arguments = list(asked[place][command])
                    if command == "resynth synthesize":
                        arguments.append(str(folder / f"out_{turn}_{place}"))
                    least[place] = min(least[place], run(checkout, arguments)[0])
    return seconds


def main() -> None:
    """Prints one line per command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="a bundle without styles")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object per command")
    args = parser.parse_args()
    checkouts = [HERE] + ([args.against.resolve()] if args.against else [])
    for command, (here, *other) in measure(checkouts, args.bundle.resolve(), args.rounds).items():
        row = {"command": command, "seconds": round(here, 3)}
        if other:
            row.update(against=round(other[0], 3), ratio=round(here / other[0], 3))
        line = f"{command:<20}{here:7.3f} s"
        line += f"   against {other[0]:7.3f} s   ratio {here / other[0]:.3f}" if other else ""
        print(json.dumps(row) if args.json else line)


if __name__ == "__main__":
    main()
