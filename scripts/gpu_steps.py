"""The steps of scripts/gpu.sh: runs each within its time limit; writes OUT/NAME.log, .json and summary.md.

Imports nothing but the standard library, so that it can say what a bare host lacks.
"""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = bool(os.environ.get("TINY"))
TINY_FACTOR = 5  # on the limits, for machines that are busy with other work
# module: the wheel that has it
NEEDED = {
    "torch": "torch",
    "torchaudio": "torchaudio",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "numba": "numba",
    "fairseq": "ve-fairseq",
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "antlr4": "antlr4-python3-runtime==4.9.3",
    "sacrebleu": "sacrebleu",
    "portalocker": "portalocker",
    "bitarray": "bitarray",
    "soundfile": "soundfile",
    "librosa": "librosa",
    "platformdirs": "platformdirs",
    "soxr": "soxr",
    "amfm_decompy": "amfm_decompy",
    "tensorboardX": "tensorboardX",
    "google.protobuf": "protobuf",
    "safetensors": "safetensors",
    "constriction": "constriction",
    "tqdm": "tqdm",
    "PIL": "pillow",
    "pytest": "pytest, pluggy and iniconfig",
}
# Rooms of the project whose modules the steps use; all are imported, to find what they need in turn.
ROOMS = ("data", "modules", "preparation", "tasks", "models", "criterions", "inference", "codec")


@dataclass
class Step:
    """A command with its limit in seconds; it may write rows of figures to the file `rows`."""

    name: str
    seconds: float
    command: list[str]
    rows: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""  # an option that the script must have

    def available(self) -> bool:
        """Whether the script exists and has the option that the step needs."""
        if not self.needs:
            return True
        script = Path(self.command[1])
        return script.is_file() and self.needs in script.read_text(encoding="utf-8")


def python(script: str, *arguments: Any) -> list[str]:
    """A command that runs a script of the project."""
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def plan(out: Path, cuda: bool) -> list[Step]:
    """The steps in order, those of $STEPS or all."""
    tiny = ["--tiny"] if TINY else []

    def benchmark(name: str, script: str, seconds: float, *arguments: Any) -> Step:
        rows = out / f"{name}.rows.json"
        command = python(f"benchmarks/{script}.py", *tiny, "--json", rows, *arguments)
        return Step(name, seconds, command, rows, needs="--tiny")

    def training_step(name: str, seconds: float, arms: str, batch: int) -> Step:
        arms = arms if cuda else "published,eager,simultaneous"
        size = ["--batch", 2, "--seconds", 0.2] if TINY else ["--batch", batch, "--seconds", 4]
        return benchmark(name, "training_step", seconds, "--arms", arms, *size)

    published = ["--batch", 2, "--seconds", 0.2] if TINY else ["--batch", 16, 64, "--seconds", 5]
    published += ["--arms", "eager", "compiled"] if cuda else []
    epochs = ["--epochs", 2, "--updates", 3, "--workers", 2] if TINY else ["--workers", 8]
    whisper = os.environ.get("WHISPER")
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=5"]
    tests.append(str(ROOT / "tests" / "gpu" / "test_devices.py"))
    device = {"RESYNTH_TEST_DEVICE": "cuda" if cuda else "cpu"}
    steps = [
        Step("imports", 60, python("scripts/gpu_steps.py", "--imports")),
        Step("tests", 150, tests, environment=device),
        training_step("step16", 60, "published,eager,graphs,simultaneous,simultaneous_graphs", 16),
        training_step("step64", 60, "published,eager,graphs", 64),
        benchmark("published", "published_loop", 90, *published),
        Step("epochs", 40, python("benchmarks/epoch_boundary.py", *epochs, "--json")),
        benchmark("preparation", "preparation_speed", 60, *(["--hf", whisper] if whisper else [])),
        training_step("compiled", 100, "compiled", 16),
        Step("voice", 480, ["bash", str(ROOT / "scripts" / "gpu_voice.sh"), str(out / "voice")]),
    ]
    wanted = os.environ.get("STEPS", "").split()
    if unknown := set(wanted) - {step.name for step in steps}:
        raise SystemExit(f"gpu.sh: error: STEPS has no {', '.join(sorted(unknown))}")
    return [step for step in steps if not wanted or step.name in wanted]


class Utilization(threading.Thread):
    """Samples the GPU's utilization (percent) and memory (GiB) twice per second until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self.process: subprocess.Popen | None = None

    def run(self) -> None:
        if not shutil.which("nvidia-smi"):
            return
        query = "--query-gpu=utilization.gpu,memory.used"
        command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "500"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            try:
                busy, used = map(float, line.split(","))
            except ValueError:
                continue
            self.samples.append((busy, used / 1024))

    def stop(self) -> dict[str, float]:
        """Ends sampling; the mean utilization and the largest memory, empty without a GPU."""
        if self.process:
            self.process.terminate()
            self.process.wait()
        if not self.samples:
            return {}
        busy = [sample[0] for sample in self.samples]
        return {
            "utilization_percent": round(sum(busy) / len(busy), 1),
            "peak_gib": round(max(sample[1] for sample in self.samples), 2),
        }


def run(step: Step, out: Path, limit: float) -> dict[str, Any]:
    """Runs a step, with everything that it started ended after `limit` seconds; returns what to report."""
    log, started = out / f"{step.name}.log", time.monotonic()
    watch = Utilization()
    watch.start()
    environment = {**os.environ, **step.environment, "STEP_SECONDS": f"{limit:.0f}"}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            step.command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            code: int | str = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = "time limit"
        finally:  # also what it left behind, such as loader workers
            end_group(process)
    text = log.read_text(encoding="utf-8", errors="replace")
    result = {
        "step": step.name,
        "status": "ok" if code == 0 else "time limit" if code == "time limit" else "failed",
        "exit": code,
        "seconds": round(time.monotonic() - started, 1),
        "limit": round(limit, 1),
        **watch.stop(),
        "rows": read_rows(step, text),
        "end_of_log": text.splitlines()[-8:],
    }
    write(out / f"{step.name}.json", json.dumps(result, indent=1))
    return result


def end_group(process: subprocess.Popen) -> None:
    """Ends the processes of a step: asks, and after two seconds insists."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue


def read_rows(step: Step, text: str) -> list[dict[str, Any]]:
    """The figures of a step: its file of rows, or the lines of its output that are JSON objects."""
    if step.rows is not None:
        try:
            found = json.loads(step.rows.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = []
        return found if isinstance(found, list) else found.get("rows", [found])
    rows = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def write(path: Path, text: str) -> None:
    """Writes a file by renaming, so that nothing half written is left when time is up."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def describe_host() -> dict[str, Any]:
    """Python, torch and the GPU."""
    code = (
        "import torch, json; c = torch.cuda.is_available(); "
        "print(json.dumps({'torch': torch.__version__, 'cuda': c, "
        "'device': torch.cuda.get_device_name() if c else 'CPU'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "python": sys.version.split()[0], "cores": os.cpu_count()}


def cell(value: Any) -> str:
    """A value in a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of flat rows; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + [
        "| " + " | ".join(cell(row.get(column, "")) for column in columns) + " |" for row in rows
    ]


def summarize(out: Path, host: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Writes summary.md: the steps, then the figures of each."""
    about = ", ".join(f"{key} {value}" for key, value in host.items())
    lines = [f"# scripts/gpu.sh{' with TINY=1' if TINY else ''}", "", about, ""]
    shown = ("step", "status", "seconds", "limit", "utilization_percent", "peak_gib")
    lines += table([{key: row[key] for key in shown if key in row} for row in results])
    for result in results:
        if result["end_of_log"] and result["status"] != "ok":
            log = "\n".join(result["end_of_log"])
            lines += ["", f"## {result['step']}: {result['status']}", "", "```", log, "```"]
        if result["rows"]:
            lines += ["", f"## {result['step']}", "", *table(result["rows"])]
    write(out / "summary.md", "\n".join(lines) + "\n")


def check_imports() -> int:
    """Imports everything that the steps need; names what is missing and the wheel that has it."""
    missing = []
    for name, wheel in NEEDED.items():
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises whatever it likes
            missing.append(f"{name}: {type(error).__name__}: {error}; wheel: {wheel}")
    own = ["fairseq_resynth.resynthesizer", "fairseq_resynth.cli.main", "fairseq_cli.hydra_train"]
    for room in ROOMS:
        for path in sorted((ROOT / "fairseq_resynth" / room).rglob("*.py")):
            own.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in own:
        try:
            importlib.import_module(name.removesuffix(".__init__"))
        except Exception as error:
            missing.append(f"{name}: {type(error).__name__}: {error}")
    for line in missing:
        print(line)
    print(json.dumps({"imported": len(NEEDED) + len(own) - len(missing), "missing": len(missing)}))
    return int(bool(missing))


def main() -> int:
    """Runs the steps; 1 if one of them did not end well."""
    if sys.argv[1:] == ["--imports"]:
        return check_imports()
    out = Path(sys.argv[1])
    started = time.monotonic()
    host = describe_host()
    if not host["cuda"] and not TINY:
        raise SystemExit(
            "gpu.sh: error: torch finds no CUDA device; TINY=1 tries the steps on the CPU"
        )
    total = 60 * float(os.environ.get("MINUTES", 60 if TINY else 9))
    results: list[dict[str, Any]] = []
    for step in plan(out, host["cuda"]):
        left = total - (time.monotonic() - started)
        limit = min(step.seconds * (TINY_FACTOR if TINY else 1), left - 5)
        if limit < 5 or not step.available():
            status = "no time left" if limit < 5 else "not in this version"
            results.append({"step": step.name, "status": status, "rows": [], "end_of_log": []})
            continue
        print(f"{step.name}: at most {limit:.0f} s", flush=True)
        results.append(run(step, out, limit))
        print(f"{step.name}: {results[-1]['status']}, {results[-1]['seconds']} s", flush=True)
        if results[-1]["status"] != "ok":
            print("\n".join(f"    {line}" for line in results[-1]["end_of_log"]), flush=True)
        summarize(out, host, results)
    summarize(out, host, results)
    print(f"summary: {out / 'summary.md'}")
    return int(any(result["status"] not in ("ok", "not in this version") for result in results))


if __name__ == "__main__":
    sys.exit(main())
