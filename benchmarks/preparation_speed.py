"""Speed of preparation: `quantize` and k-means, as they are and as they were; on request `f0` and `pack`.

    python benchmarks/preparation_speed.py [--device cuda] [--minutes 60] [--tiny] [--json FILE]
    python benchmarks/preparation_speed.py --what f0 pack [--minutes 6] [--rounds 2] [--methods yaapt dio]
        [--workers 1 2]

quantize: seconds of speech per second, one recording at a time and read when it is needed, against batches
that are read ahead; Whisper base, block 4, has random weights unless --hf FOLDER is given. kmeans: 500
clusters of 120,000 random-walk frames of 512 numbers, by scikit-learn (slow; on a GPU only with --sklearn)
and by torch.

f0 and pack: hours of speech per hour. Runs alternate, and the same command on finished work, which costs what
starting costs, is taken off. Wall time depends on who else wants the cores, so processor time is given too:
what it grows by with more workers can never be linear.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from preparation_memory import RESYNTH, SPEECH, lengths_of_speech, link_speech

ROOT = Path(__file__).resolve().parents[1]
PR_SET_CHILD_SUBREAPER = 36  # of Linux
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
BATCH_SECONDS = 100
WHISPER_BASE = {"layers": 6, "width": 512, "heads": 8}
TINY_WHISPER = {"layers": 2, "width": 16, "heads": 2}


def linked_speech(folder: Path, minutes: float) -> "Manifest":  # noqa: F821
    """A manifest of at least that many minutes: the embedded speech, linked under many names."""
    from fairseq_resynth.data.audio.files import audio_length
    from fairseq_resynth.data.manifest import read_manifest, write_manifest

    files, rows, samples = sorted(SPEECH.rglob("*.flac")), [], 0
    lengths = {file: audio_length(file) for file in files}
    folder.mkdir()
    for index, file in enumerate(itertools.cycle(files)):
        if samples >= minutes * 60 * 16000:
            break
        (folder / f"{index}.flac").symlink_to(file)
        rows.append((f"{index}.flac", lengths[file]))
        samples += lengths[file]
    write_manifest(folder / "train.tsv", folder, rows)
    return read_manifest(folder / "train.tsv")


def whisper(folder: Path, layers: int, width: int, heads: int) -> Path:
    """A Whisper model with random weights."""
    import transformers

    tokens = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    config = transformers.WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        decoder_layers=1,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        vocab_size=60,
        **dict.fromkeys(tokens, 1),
    )
    transformers.WhisperModel(config).save_pretrained(folder)
    return folder


def encoders(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, "FrameEncoder"]]:  # noqa: F821
    """Encoders by name; Whisper only where transformers is installed."""
    from fairseq_resynth.encoders.content import build_encoder

    yield "logmel", build_encoder("logmel", device=args.device)
    layer, sizes = (1, TINY_WHISPER) if args.tiny else (args.layer, WHISPER_BASE)
    try:
        path = args.hf or whisper(folder / "whisper", **sizes)
    except ImportError:
        print("quantize whisper: transformers is not installed", file=sys.stderr)
        return
    yield f"hf {Path(path).name}", build_encoder("hf", path, layer, args.device)


def quantize(args: argparse.Namespace, folder: Path) -> Iterator[dict]:
    """Rows of `quantize`: the old and the new way in turns."""
    from fairseq_resynth.data.storage.shards import Shard
    from fairseq_resynth.encoders.content import ContentEncoder, KMeans
    from fairseq_resynth.preparation.units import Reading, quantize_split

    # The old way is slow: a fifth of the speech.
    shares = {"": 0.05 / args.minutes, "old": 0.2, "new": 1.0}
    speech = {
        way: linked_speech(folder / f"{way}audio", share * args.minutes)
        for way, share in shares.items()
    }
    batch = 0 if args.device == "cpu" else BATCH_SECONDS * 16000
    ways = {"old": Reading(0, 0), "new": Reading(batch, len(os.sched_getaffinity(0)))}
    for name, frames in encoders(args, folder):
        width = frames.features([torch.randn(16000)])[0].shape[1]
        centroids = np.random.default_rng(0).normal(size=(500, width))
        encoder = ContentEncoder(frames, KMeans(centroids, frames.description()))
        for index, (way, reading) in enumerate(
            [("", ways["new"]), *(args.rounds * [*ways.items()])]
        ):
            out = folder / f"{name} {index}"
            out.mkdir()
            start, used = time.perf_counter(), time.process_time()
            outcome = quantize_split(speech[way], out / "train.units", encoder, Shard(), reading)
            seconds, used = time.perf_counter() - start, time.process_time() - used
            if outcome.failed or not outcome.joined:
                raise SystemExit(f"quantize {name} failed: {outcome}")
            length = float(speech[way].num_samples.sum()) / 16000
            if way:  # the first is to warm up
                yield {
                    "what": f"quantize {name}",
                    "way": way,
                    "batch_seconds": reading.batch_samples // 16000,
                    "workers": reading.workers,
                    "speech_minutes": round(length / 60, 1),
                    "seconds": round(seconds, 2),
                    "processor_seconds": round(used, 2),
                    "times_real_time": round(length / seconds),
                }


def random_walks(frames: int, width: int) -> np.ndarray:
    """(frames, width) float32: walks of 300 steps, each from a place of its own, in random order."""
    generator = np.random.default_rng(0)
    steps = generator.normal(size=(frames // 300, 300, width)).astype(np.float32)
    steps[:, 0] *= 5
    return generator.permutation(np.cumsum(steps, axis=1).reshape(-1, width))


def kmeans(args: argparse.Namespace) -> Iterator[dict]:
    """Rows of k-means: seconds and mean squared distance, by torch and by scikit-learn."""
    from fairseq_resynth.preparation.kmeans import fit_centroids

    frames, clusters = (
        (random_walks(3000, 16), 20) if args.tiny else (random_walks(120_000, 512), 500)
    )

    def by_torch() -> float:
        return fit_centroids(frames, clusters, 1369, args.device)[1]

    def by_sklearn() -> float:
        from sklearn.cluster import MiniBatchKMeans

        settings = {"max_iter": 150, "batch_size": 10000, "tol": 0.0, "max_no_improvement": 100}
        model = MiniBatchKMeans(
            clusters, n_init=3, reassignment_ratio=0.01, random_state=1369, **settings
        )
        return float(model.fit(frames).inertia_) / len(frames)

    ways = {"new": by_torch}
    if args.sklearn or args.tiny or args.device == "cpu":
        ways["old"] = by_sklearn
    for way, fit in ways.items():
        start, used = time.perf_counter(), time.process_time()
        distance = fit()
        yield {
            "what": f"kmeans {clusters} of {frames.shape}",
            "way": way,
            "seconds": round(time.perf_counter() - start, 2),
            "processor_seconds": round(time.process_time() - used, 2),
            "mean_squared_distance": round(distance, 3),
        }


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


def measure(made: list[Path], command: list[object]) -> tuple[float, float]:
    """Runs a verb from nothing and again on its result; returns the differences of both times."""
    for path in made:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    first, again = timed(*command), timed(*command)
    return first[0] - again[0], first[1] - again[1]


def commands(args: argparse.Namespace, folder: Path) -> Iterator[dict]:
    """Rows of `f0` and `pack`: hours of speech per hour of wall and of processor time, by round."""
    adopt_orphans()
    data = link_speech(folder / "corpus", lengths_of_speech(folder / "speech"), args.minutes)
    plans: dict[str, tuple[list[Path], list[object]]] = {}
    for method, workers in itertools.product(args.methods, args.workers):
        command = ["f0", data, "--method", method, "--workers", workers, "--accept-unvoiced"]
        plans[f"f0 {method}, {workers} workers"] = [data / "f0"], command
    plans = plans if "f0" in args.what else {}
    if "pack" in args.what:
        packed = folder / "packed"
        plans["pack"] = [packed], ["pack", data, "--outdir", packed, "--workers", 1]
    rates: dict[str, list] = {name: [] for name in plans}
    for _ in range(args.rounds):
        for name, plan in plans.items():
            rates[name].append([round(60 * args.minutes / each) for each in measure(*plan)])
            print(f"{name}: {rates[name][-1]}", file=sys.stderr, flush=True)
    for name, found in rates.items():
        wall, processor = zip(*found, strict=True)
        yield {"what": name, "an_hour_of_wall": wall, "an_hour_of_core": processor}


def main() -> None:
    """Prints one JSON line per row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = ["quantize", "kmeans", "f0", "pack"]
    parser.add_argument("--what", nargs="+", default=what[:2], choices=what)
    parser.add_argument("--device", help="cpu or cuda (default: cuda where it exists)")
    parser.add_argument("--minutes", type=float, help="of speech (60 on a GPU, else 6)")
    parser.add_argument("--rounds", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="check that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    parser.add_argument("--hf", help="folder of a transformers encoder")
    parser.add_argument("--layer", type=int, default=4, help="of it (%(default)s)")
    parser.add_argument(
        "--sklearn", action="store_true", help="scikit-learn's k-means on a GPU too"
    )
    parser.add_argument("--methods", nargs="*", default=["yaapt", "dio"], help="of f0")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="of f0")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.minutes is None:
        args.minutes = 0.1 if args.tiny else 6 if args.device == "cpu" else 60
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {"quantize": lambda: quantize(args, folder), "kmeans": lambda: kmeans(args)}
        planned = [parts[part]() for part in args.what if part in parts]
        if set(args.what) - set(parts):
            planned.append(commands(args, folder))
        for row in itertools.chain.from_iterable(planned):
            rows.append({**row, "device": args.device})
            print(json.dumps(rows[-1]), flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
