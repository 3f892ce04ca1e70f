"""Time, memory and open files of many files, long recordings, live conversion and training.

    python benchmarks/long_runs.py files --number 1000 10000 100000
    python benchmarks/long_runs.py recording --bundle BUNDLE --minutes 1 10 30 60
    python benchmarks/long_runs.py live --bundle BUNDLE --minutes 60
    python benchmarks/long_runs.py training DATA --minutes 30

`files` links 0.2 s of embedded recordings as often as it takes and prepares them, each verb twice: the second
run finds all done. `recording` joins the embedded speech to recordings of that length. Both print a
JSON line per verb and size: seconds, processor seconds without the imports, the peak of resident memory in MB
of 2**20 bytes with them (200 MB), and the most open files and threads that were seen, of the process and of
all that it started. `live` prints a line per minute of speech, `training` one per minute of a training with
the demo's configuration.
"""

import argparse
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).resolve().parents[1]
SPEECH = REPOSITORY / "examples" / "asterisk" / "speech"
BIN = Path(sys.executable).parent
PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20
SHARDS = 8
QUANTILES = ["--f0-representation", "quantile"]


def processes(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def usage(pid: int) -> dict[str, float]:
    """Resident memory in MB, open files and threads of a process; {} if it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        resident = int((folder / "statm").read_text().split()[1]) * PAGE
        files, threads = (len(os.listdir(folder / name)) for name in ("fd", "task"))
    except OSError:
        return {}
    return {"rss_mb": round(resident, 1), "files": files, "threads": threads}


def start(command: list[str], output: IO[bytes]) -> int:
    """Starts a command of this environment; returns its process. `resynth` runs in a fork of this process,
    which has imported what it needs."""
    if command[0] != "resynth":
        program = [BIN / command[0], *command[1:]]
        return subprocess.Popen(program, stdout=output, stderr=output).pid
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        from fairseq_resynth.cli.main import main as resynth

        status = resynth(command[1:])
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def import_all() -> None:
    """Imports what the verbs use."""
    for name in (
        "scipy.signal soxr torchaudio.compliance.kaldi swift_f0 fairseq_resynth.codec.folders "
        "fairseq_resynth.evaluation.runs.evaluate fairseq_resynth.preparation.merge"
    ).split():
        importlib.import_module(name)


def skip_signal_processing() -> None:
    """Leaves out spectra and F0: reading, recording and writing remain of `quantize` and `f0`."""
    import numpy as np
    import torch

    from fairseq_resynth.data.pitch.extraction import num_frames
    from fairseq_resynth.encoders.frames import LogMelEncoder
    from fairseq_resynth.preparation import f0

    LogMelEncoder._encode = lambda self, wavs: [
        torch.zeros(self.num_frames(len(wav)), 80) for wav in wavs
    ]
    f0.extract_f0 = lambda wav, **options: 100.0 + np.arange(num_frames(len(wav)), dtype=np.float32)


def run(*command: Any) -> dict[str, Any]:
    """Runs a command and returns what it took; raises SystemExit if it fails."""
    import_all()  # before the clock starts
    began, arguments = time.perf_counter(), [str(part) for part in command]
    most: dict[str, float] = {"files": 0, "threads": 0}
    with tempfile.TemporaryFile() as output:
        process = start(arguments, output)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                found = list(filter(None, map(usage, processes(process))))
                for name in most:
                    most[name] = max(most[name], sum(one[name] for one in found))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, used = os.wait4(process, 0)
        ended.set()
        watcher.join()
        if status:
            output.seek(0)
            raise SystemExit(f"{' '.join(arguments)} failed:\n{output.read().decode()[-2000:]}")
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        **most,
    }


def show(**row: Any) -> None:
    """Prints a JSON line at once."""
    print(json.dumps(row), flush=True)


CUT = """
import pathlib, sys, soundfile
source, target = map(pathlib.Path, sys.argv[1:])
for path in sorted(source.rglob("*.flac"))[::3]:
    wav, rate = soundfile.read(path, frames=16000, dtype="int16")
    out = target / path.parent.name / path.name
    out.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(out, wav[4800:8000], rate)
"""


def short_recordings(folder: Path) -> list[Path]:
    """0.2 s of every third embedded recording, of all voices."""
    run("python", "-c", CUT, SPEECH, folder)
    return sorted(folder.rglob("*.flac"))


def link(folder: Path, recordings: list[Path], number: int) -> Path:
    """A folder of that many links, a folder per speaker with folders of 1000."""
    for index, source in enumerate(itertools.islice(itertools.cycle(recordings), number)):
        target = folder / f"{index // 1000:03d}" / source.parent.name / f"{index:06d}.flac"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    return folder


def file_steps(folder: Path, made: Path, args: argparse.Namespace) -> Iterator[tuple[str, list]]:
    """(name, command) of each step of the preparation of `folder`."""
    data, audio, km = folder / "data", folder / "links", made / "km.safetensors"
    yield (
        "preprocess",
        ["preprocess", "--srcdir", audio, "--outdir", folder / "audio", "--workers", 1],
    )
    if args.keep_audio:
        audio = folder / "audio"
    split = ["--speaker-from", "parent", "--valid-percent", 1, "--test-percent", 1]
    yield "manifest", ["manifest", audio, "--outdir", data, *split]
    if not km.exists():
        yield (
            "kmeans",
            ["kmeans", data, "--feature-type", "logmel", "--num-clusters", 50, "--out", km],
        )
    yield "quantize", ["quantize", data, "--kmeans", km, "--workers", 0]
    yield "f0", ["f0", data, "--method", "swift", "--workers", 1, "--accept-unvoiced"]
    yield "quantize-f0", ["quantize-f0", data, *QUANTILES]


def measure_files(args: argparse.Namespace, work: Path) -> None:
    """Prepares folders of more and more files."""
    if args.without_signal_processing:
        skip_signal_processing()
    recordings = short_recordings(work / "embedded")
    for number in args.number:
        folder = work / str(number)
        link(folder / "links", recordings, number)
        for name, command in file_steps(folder, work, args):
            if name not in args.steps:
                continue
            show(number=number, step=name, **run("resynth", *command))
            if name not in ("manifest", "kmeans"):
                show(number=number, step=f"{name}, again", **run("resynth", *command))
        data = folder / "data"
        if "merge" in args.steps:
            merge_shards(data, number)
        if "training" in args.steps:
            save = f"checkpoint.save_dir={folder / 'checkpoints'}"
            row = run(*training_command(data), save, "optimization.max_update=2")
            show(number=number, step="training, 2 updates", **row)


def merge_shards(data: Path, number: int) -> None:
    """Makes the pitch codes by shards, the last one elsewhere, so that `resynth merge` finds all of them."""
    elsewhere = Path(f"{data}_elsewhere")
    for file in data.glob("*.f0"):
        file.unlink()
    shutil.copytree(data, elsewhere)
    for index in range(1, SHARDS + 1):
        where = elsewhere if index == SHARDS else data
        row = run("resynth", "quantize-f0", where, *QUANTILES, "--shard", f"{index}/{SHARDS}")
    show(number=number, step=f"quantize-f0 --shard {SHARDS}/{SHARDS}", **row)
    for part in elsewhere.glob(f"*.{SHARDS}-of-{SHARDS}*"):
        shutil.copy2(part, data)
    show(number=number, step="merge", **run("resynth", "merge", data))


def training_command(data: Path) -> list[Any]:
    """The training of the demo's vocoder."""
    config = ["--config-dir", REPOSITORY / "configs", "--config-name", "demo_unit_source_filter"]
    return ["fairseq-hydra-train", *config, f"task.data={data.resolve()}", "common.cpu=true"]


def recording(folder: Path, minutes: float) -> Path:
    """A 16-bit WAV of the embedded speech, from the beginning again where it ends."""
    wavs, path = folder / "speech", folder / f"{minutes:g}.wav"
    if not wavs.exists():
        run("resynth", "preprocess", "--srcdir", SPEECH, "--outdir", wavs, "--format", "wav")
    left, files = int(minutes * 60 * 16000), itertools.cycle(sorted(wavs.rglob("*.wav")))
    with wave.open(str(path), "wb") as output:
        output.setparams((1, 2, 16000, 0, "NONE", ""))
        while left > 0:
            with wave.open(str(next(files)), "rb") as source:
                frames = source.readframes(min(left, source.getnframes()))
            output.writeframes(frames)
            left -= len(frames) // 2
    return path


def recording_steps(wav: Path, out: Path, args: argparse.Namespace) -> Iterator[tuple[str, list]]:
    """(name, command) of every verb that takes a recording."""
    data, km = out / "data", out.parent / "km.safetensors"
    bundle = ["--bundle", args.bundle]
    if args.content_checkpoint:
        bundle += ["--content-checkpoint", args.content_checkpoint]
    yield (
        "preprocess",
        ["preprocess", "--srcdir", wav.parent, "--outdir", out / "audio", "--workers", 1],
    )
    split = ["--valid-percent", 0, "--test-percent", 0, "--speaker-from", "single"]
    yield "manifest", ["manifest", out / "audio", "--outdir", data, *split]
    if not km.exists():
        yield (
            "kmeans",
            ["kmeans", data, "--feature-type", "logmel", "--num-clusters", 50, "--out", km],
        )
    yield "quantize", ["quantize", data, "--kmeans", km, "--workers", 0]
    for method in args.f0_method:
        yield f"f0 {method}", ["f0", data, "--method", method, "--workers", 1]
    yield "quantize-f0", ["quantize-f0", data, *QUANTILES]
    yield (
        "resynthesize",
        ["resynthesize", wav, *bundle, "--target", args.target, "--outdir", out / "resynthesized"],
    )
    yield (
        "convert",
        ["convert", wav, *bundle, "--target", args.target, "--outdir", out / "converted"],
    )
    yield "encode", ["encode", wav, *bundle, "-o", out / "speech.rsyn"]
    yield (
        "decode",
        [
            "decode",
            out / "speech.rsyn",
            "--bundle",
            args.bundle,
            "--target",
            args.target,
            "-o",
            out / "decoded.wav",
        ],
    )
    generated = ["--generated", out / "converted", "--reference", wav.parent]
    for metric in args.metrics:
        command = [
            "evaluate",
            *generated,
            "--metrics",
            metric,
            "--audio",
            "none",
            "--workers",
            1,
            "--outdir",
            out / metric,
        ]
        yield f"evaluate {metric}", command


def measure_recording(args: argparse.Namespace, work: Path) -> None:
    """Runs every verb on longer and longer recordings."""
    for minutes in args.minutes:
        source = work / f"{minutes:g}_minutes" / "source"
        source.mkdir(parents=True, exist_ok=True)
        wav = recording(work, minutes).rename(source / "speech.wav")
        for name, command in recording_steps(wav, source.parent, args):
            if not args.steps or name in args.steps:
                show(minutes=minutes, step=name, **run("resynth", *command))


def measure_live(args: argparse.Namespace, work: Path) -> None:
    """Converts as fast as it goes; this process's memory, files and threads after each minute of speech."""
    wav = recording(work, min(args.minutes, 5))
    import numpy as np

    from fairseq_resynth.conversion.live import LiveConverter
    from fairseq_resynth.resynthesizer import Resynthesizer

    system = Resynthesizer.from_pretrained(args.bundle, args.content_checkpoint)
    converter = LiveConverter(system, args.target)
    given = converted = 0
    for minute in range(int(args.minutes)):
        start = time.process_time()
        with wave.open(str(wav), "rb") as stream:
            stream.setpos(minute % 5 * 60 * 16000)
            speech = (
                np.frombuffer(stream.readframes(60 * 16000), np.int16).astype(np.float32) / 32768
            )
        for piece in np.array_split(speech, 300):  # 0.2 s each
            given, converted = given + len(piece), converted + len(converter.push(piece))
        cpu = round(time.process_time() - start, 1)
        held = (given - converted) / 16000
        show(
            minute=minute + 1,
            cpu=cpu,
            held_seconds=held,
            delay=converter.delay,
            **usage(os.getpid()),
        )


def measure_training(args: argparse.Namespace, work: Path) -> None:
    """Trains; each minute's memory, open files and threads of all processes, and the sizes of logs."""
    save = work / "checkpoints"
    overrides = [
        f"checkpoint.save_dir={save}",
        f"optimization.stop_time_hours={args.minutes / 60}",
        *args.overrides,
    ]
    with (work / "train.log").open("wb") as log:
        command = [str(part) for part in training_command(args.data)]
        process = subprocess.Popen(
            [BIN / command[0], *command[1:], *overrides], stdout=log, stderr=log
        )
        start = time.perf_counter()
        while process.poll() is None:
            time.sleep(60)
            found = list(filter(None, map(usage, processes(process.pid))))
            events = sum(path.stat().st_size for path in save.rglob("events*"))
            show(
                minute=round((time.perf_counter() - start) / 60, 1),
                epoch=(work / "train.log").read_bytes().count(b"begin training epoch"),
                processes=found,
                log_bytes=(work / "train.log").stat().st_size,
                tensorboard_bytes=events,
            )
    if process.returncode:
        raise SystemExit((work / "train.log").read_text()[-2000:])


def main() -> None:
    """Runs one of the four."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, help="folder to work in and to leave (default: a temporary one)"
    )
    verbs = parser.add_subparsers(required=True, metavar="files|recording|live|training")
    files = verbs.add_parser("files")
    files.add_argument("--number", nargs="+", type=int, default=[1000, 10_000, 100_000])
    steps = [
        "preprocess",
        "manifest",
        "kmeans",
        "quantize",
        "f0",
        "quantize-f0",
        "merge",
        "training",
    ]
    files.add_argument("--steps", nargs="+", default=steps, choices=steps)
    files.add_argument(
        "--keep-audio", action="store_true", help="go on with what preprocess wrote, not the links"
    )
    files.add_argument(
        "--without-signal-processing",
        action="store_true",
        help="quantize and f0 read and write, and compute neither spectra nor F0",
    )
    files.set_defaults(measure=measure_files)
    long = verbs.add_parser("recording")
    long.add_argument("--minutes", nargs="+", type=float, default=[1, 10, 30, 60])
    long.add_argument("--steps", nargs="+", help="only these, as they are printed")
    long.add_argument("--f0-method", nargs="+", default=["swift"])
    long.add_argument("--metrics", nargs="+", default=["f0", "mel", "mcd"])
    long.set_defaults(measure=measure_recording)
    live = verbs.add_parser("live")
    live.add_argument("--minutes", type=float, default=60)
    live.set_defaults(measure=measure_live)
    for verb in (long, live):
        verb.add_argument("--bundle", required=True)
        verb.add_argument("--content-checkpoint")
        verb.add_argument("--target", default="english")
    training = verbs.add_parser("training")
    training.add_argument("data", type=Path)
    training.add_argument("--minutes", type=float, default=30)
    training.add_argument("--overrides", nargs="+", default=[])
    training.set_defaults(measure=measure_training)
    args = parser.parse_args()
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
        args.measure(args, args.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.measure(args, Path(folder))


if __name__ == "__main__":
    main()
