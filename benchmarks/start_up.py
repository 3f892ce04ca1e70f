"""Processor seconds of what a user runs first: help, 160 ms of speech, one file's F0, validations, set-up.

    python benchmarks/start_up.py [--against FOLDER] [--bundle BUNDLE] [--rounds 5] [--set-up] [--json]

Each command runs in a new process, with an empty cache of numba. The F0 is YAAPT's of one recording; the
validations are of one utterance, with the imports of a training, by YAAPT and by the method of the demo,
which is SwiftF0 where the checkout has it. --set-up also runs `scripts/setup.sh` into a new environment,
after one run that fills pip's cache. FOLDER is another checkout of this repository, for example
(`git worktree add FOLDER COMMIT`); its commands alternate with those of this checkout, and the ratio of the
least times is printed. `import torch` is the floor of every command that computes, `import fairseq` that of
a training.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile

HERE = Path(__file__).resolve().parents[1]
BUNDLE = HERE / "examples" / "asterisk" / "bundle"
RECORDING = HERE / "examples/asterisk/speech/spanish/conf-nonextended.flac"
MAIN = ["-m", "fairseq_resynth.cli.main"]
VALIDATION = """
import sys
import fairseq_resynth.tasks.unit_resynthesis
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.measures.pictures import spectrogram_png
from fairseq_resynth.tasks.validation import measure
wav = read_audio(sys.argv[1])
try:
    f0 = extract_f0(wav, sys.argv[2])
except ValueError:
    f0 = extract_f0(wav)
measure(wav, wav, f0, f0)
spectrogram_png(wav, f0=f0)
"""
# A copy, so that no environment is replaced.
SET_UP = """
git archive HEAD | tar x -C "$1"
cd "$1"
unset PYTHONPATH
bash scripts/setup.sh
"""


def run(checkout: Path, arguments: list[str]) -> tuple[float, str]:
    """Runs Python on a checkout; returns (user and system seconds, standard output)."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each run would compile what it imports
    program = arguments if arguments[0] == "bash" else [sys.executable, *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as cache:
        environment["NUMBA_CACHE_DIR"] = cache
        done = subprocess.run(
            program, capture_output=True, text=True, env=environment, cwd=checkout
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
        "import fairseq": ["-c", "import fairseq"],
        "resynth --help": [*MAIN, "--help"],
        "resynth synthesize": [*MAIN, *speak],
        "resynth f0": [*MAIN, "f0", "--method", "yaapt"],
        "first validation": ["-c", VALIDATION, str(RECORDING), "yaapt"],
        "validation of demo": ["-c", VALIDATION, str(RECORDING), "swift"],
    }


def with_output(command: str, arguments: list[str], out: Path) -> list[str]:
    """The arguments with a folder of their own for what the command writes."""
    if command == "resynth synthesize":
        return [*arguments, str(out)]
    if command == "resynth f0":
        out.mkdir()
        size = round(soundfile.info(RECORDING).duration * 16000)
        (out / "train.tsv").write_text(f"{RECORDING.parent}\n{RECORDING.name}\t{size}\n")
        (out / "train.speaker").write_text("one\n")
        return [*arguments, str(out)]
    return arguments


def set_up(checkouts: list[Path]) -> list[float]:
    """The seconds of setting up each checkout, after a run that fills pip's cache."""
    seconds = []
    for checkout in checkouts:
        for _ in range(2):
            with tempfile.TemporaryDirectory() as copy:
                last = run(checkout, ["bash", "-c", SET_UP, "bash", copy])[0]
        seconds.append(last)
    return seconds


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
                    out = folder / f"{command.split()[-1]}_{turn}_{place}"
                    arguments = with_output(command, asked[place][command], out)
                    least[place] = min(least[place], run(checkout, arguments)[0])
    return seconds


def main() -> None:
    """Prints one line per command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="a bundle without styles")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command (%(default)s)")
    parser.add_argument("--set-up", action="store_true", help="also scripts/setup.sh, in minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object per command")
    args = parser.parse_args()
    checkouts = [HERE] + ([args.against.resolve()] if args.against else [])
    seconds = measure(checkouts, args.bundle.resolve(), args.rounds)
    if args.set_up:
        seconds["scripts/setup.sh"] = set_up(checkouts)
    for command, (here, *other) in seconds.items():
        row = {"command": command, "seconds": round(here, 3)}
        if other:
            row.update(against=round(other[0], 3), ratio=round(here / other[0], 3))
        line = f"{command:<20}{here:7.3f} s"
        line += f"   against {other[0]:7.3f} s   ratio {here / other[0]:.3f}" if other else ""
        print(json.dumps(row) if args.json else line)


if __name__ == "__main__":
    main()
