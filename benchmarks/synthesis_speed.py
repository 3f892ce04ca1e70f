"""Real-time factor of synthesis on one thread, beside the floor that the processor's matrix rate sets.

    python benchmarks/synthesis_speed.py [--seconds 8] [--repeats 3] [--models V1 vocos vocos_small] [--json]

Every model has 100 units of 320 samples, 20 pitch codes of 1280 and 100 speakers, as in the paper, and
random weights, which time does not depend on. `layers as trained` is the module that fairseq-train trains
(weight norm folded), `resynth` what `resynth synthesize` and `Resynthesizer` run. The floor is the
generator's arithmetic over the rate of a 1024 x 1024 matrix product, measured between the runs, since other
work on the machine slows both. Processor seconds are counted, the fastest of the repeats.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fairseq_resynth.chunked_synthesis import ChunkDecoder
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.models.architectures import build_vocoder
from fairseq_resynth.models.unit_hifigan import UnitHifiganConfig
from fairseq_resynth.models.unit_vocos import UnitVocosConfig, unit_vocos_small
from fairseq_resynth.unit_decoder import EncodedSpeech, UnitDecoder

STREAMS = Streams(320, 100, 1280, 20, tuple(f"speaker{index}" for index in range(100)))
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _small() -> UnitVocosConfig:
    chosen = argparse.Namespace()
    unit_vocos_small(chosen)
    return UnitVocosConfig(**vars(chosen))


MODELS = {"V1": UnitHifiganConfig, "vocos": UnitVocosConfig, "vocos_small": _small}


def seconds(run: Callable[[], object]) -> float:
    """Returns the processor seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def matrix_rate(dtype: torch.dtype) -> float:
    """Measures the operations a second of a 1024 x 1024 product, the best of ten."""
    matrix = torch.randn(1024, 1024).to(dtype)
    matrix @ matrix
    return 2 * 1024**3 / min(seconds(lambda: matrix @ matrix) for _ in range(10))


def speech(duration: float) -> EncodedSpeech:
    """Returns random streams of that many seconds."""
    rng, units = np.random.default_rng(0), round(duration * 50)
    codes = rng.integers(20, size=-(-units // 4))
    return EncodedSpeech(rng.integers(100, size=units), codes, "speaker7")


def measure(name: str, duration: float, repeats: int) -> list[dict[str, float | str]]:
    """Measures one model as trained and as `resynth` runs it, in turns with the matrix rate."""
    model = build_vocoder(MODELS[name](), STREAMS)
    decoders = {key: UnitDecoder(model, STREAMS, precision=key) for key in PRECISIONS}
    said = speech(duration)
    inputs = [torch.as_tensor(row)[None] for row in (said.units, said.f0_codes)]
    inputs.append(torch.tensor([7]))

    def as_trained(precision: str) -> Callable[[], object]:
        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                model(*inputs)

        return run

    rows = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model(*inputs)
        for precision, dtype in PRECISIONS.items():
            decoder = decoders[precision]
            runs = {
                "layers as trained": as_trained(precision),
                "resynth": lambda decoder=decoder: decoder.decode_all([said]),
            }
            rate, best = 0.0, dict.fromkeys(runs, float("inf"))
            for _ in range(repeats + 1):  # the first warms up, and cannot be the fastest
                rate = max(rate, matrix_rate(dtype))
                best = {key: min(best[key], seconds(run)) for key, run in runs.items()}
            floor = counter.get_total_flops() / duration / rate
            rows.append(
                {
                    "model": name,
                    "parameters_m": sum(p.numel() for p in model.parameters()) / 1e6,
                    "precision": precision,
                    "gflop_a_second": counter.get_total_flops() / duration / 1e9,
                    "gflops_of_matrix_product": rate / 1e9,
                    "floor": floor,
                    **{f"rtf {key}": value / duration for key, value in best.items()},
                    "resynth / floor": best["resynth"] / duration / floor,
                    "first_chunk_ms": first_chunk(decoder) * 1e3,
                }
            )
    return rows


def first_chunk(decoder: UnitDecoder, chunk_units: int = 16) -> float:
    """Returns the processor seconds until the first chunk of a stream is there, once its units are."""
    said = speech(4)

    def run() -> float:
        chunks = ChunkDecoder(decoder, "speaker7", chunk_units)
        ready = chunks.context + 16
        return seconds(lambda: chunks.push(said.units[:ready], said.f0_codes[: ready // 4]))

    return min(run() for _ in range(3))


def main() -> None:
    """Prints a table, or a JSON line a row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of speech (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", action="store_true", help="print a JSON line a row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for number, name in enumerate(args.models):
        rows = measure(name, args.seconds, args.repeats)
        if not number and not args.json:
            print(" | ".join(rows[0]))
        for row in rows:
            cells = [value if isinstance(value, str) else f"{value:.4g}" for value in row.values()]
            print(json.dumps(row) if args.json else " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
