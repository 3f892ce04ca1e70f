"""Real-time factor of synthesis on one thread, beside the floor that the processor's matrix rate sets.

    python benchmarks/synthesis_speed.py [--seconds 8] [--repeats 3] [--models V1 vocos vocos_small …]
        [--precision float32 bfloat16] [--json]

Every model has 100 units of 320 samples, 20 pitch codes of 1280 and 100 speakers, as in the paper, and
random weights, which time does not depend on. `layers as trained` is the module that fairseq-train trains
(weight norm folded), `resynth` what `resynth synthesize` and `Resynthesizer` run. The floor is the
generator's arithmetic over the rate of a 1024 x 1024 matrix product, measured between the runs, since other
work on the machine slows both. Processor seconds are counted, the fastest of the repeats; `smallest` and
`largest` are `resynth / floor` within one repeat.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.decoder import ChunkDecoder, UnitDecoder, decode_all
from fairseq_resynth.modules.architectures import build_vocoder, default_sizes
from fairseq_resynth.modules.generators.inference import slow_bfloat16

STREAMS = StreamSpec(320, 100, 1280, 20, tuple(f"speaker{index}" for index in range(100)))
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


MODELS = {
    "V1": "unit_hifigan",
    "vocos": "unit_vocos",
    "vocos_small": "unit_vocos_small",
    "source_filter": "unit_source_filter",
    "source_filter_small": "unit_source_filter_small",
}


def seconds(run: Callable[[], object]) -> float:
    """Returns the processor seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def matrix_rate(dtype: torch.dtype) -> float:
    """Measures the operations per second of a 1024 x 1024 product, the best of ten."""
    matrix = torch.randn(1024, 1024).to(dtype)
    matrix @ matrix
    return 2 * 1024**3 / min(seconds(lambda: matrix @ matrix) for _ in range(10))


def speech(duration: float) -> Utterance:
    """Returns random streams of that many seconds."""
    rng, units = np.random.default_rng(0), round(duration * 50)
    codes = rng.integers(20, size=-(-units // 4))
    return Utterance(rng.integers(100, size=units), codes, "speaker7")


def in_turns(
    runs: dict[str, Callable[[], object]], dtype: torch.dtype, repeats: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Returns the matrix rate and the seconds of each run, at every repeat after one that warms up."""
    rates, times = [], {key: [] for key in runs}
    for _ in range(repeats + 1):
        rates.append(matrix_rate(dtype))
        for key, run in runs.items():
            times[key].append(seconds(run))
    return rates[1:], {key: values[1:] for key, values in times.items()}


def measure(
    name: str, duration: float, repeats: int, precisions: list[str]
) -> Iterator[dict[str, float | str]]:
    """Measures one model as trained and as `resynth` runs it, in turns with the matrix rate."""
    model = build_vocoder(default_sizes(MODELS[name]), STREAMS)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    decoders = {key: UnitDecoder(model, STREAMS, precision=key) for key in precisions}
    said = speech(duration)
    inputs = [torch.as_tensor(row)[None] for row in (said.units, said.f0_codes)]
    inputs.append(torch.tensor([7]))

    def as_trained(precision: str) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            model(*inputs)

    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    flops = counter.get_total_flops()
    for precision, decoder in decoders.items():
        runs = {
            "layers as trained": partial(as_trained, precision),
            "resynth": partial(decode_all, decoder, [said]),
        }
        rates, times = in_turns(runs, PRECISIONS[precision], repeats)
        pairs = zip(times["resynth"], rates, strict=True)
        over_floor = [took * rate / flops for took, rate in pairs]
        yield {
            "model": name,
            "parameters_m": parameters / 1e6,
            "precision": precision,
            "gflop_a_second": flops / duration / 1e9,
            "gflops_of_matrix_product": max(rates) / 1e9,
            "floor": flops / duration / max(rates),
            **{f"rtf {key}": min(values) / duration for key, values in times.items()},
            "resynth / floor": min(times["resynth"]) * max(rates) / flops,
            "smallest": min(over_floor),
            "largest": max(over_floor),
            "first_chunk_ms": first_chunk(decoder) * 1e3,
        }


def first_chunk(decoder: UnitDecoder, chunk_units: int = 16) -> float:
    """Returns the processor seconds from units to the first finished chunk of a stream."""
    said = speech(4)

    def run() -> float:
        chunks = ChunkDecoder(decoder, "speaker7", chunk_units)
        ready = chunks.context + 16
        return seconds(lambda: chunks.push(said.units[:ready], said.f0_codes[: ready // 4]))

    return min(run() for _ in range(3))


def main() -> None:
    """Prints a table, or one JSON line per row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of speech (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    fast = [key for key in PRECISIONS if key == "float32" or not slow_bfloat16(torch.device("cpu"))]
    precisions = {"choices": PRECISIONS, "default": fast, "help": "%(default)s on this processor"}
    parser.add_argument("--precision", nargs="+", **precisions)
    parser.add_argument("--json", action="store_true", help="print one JSON line per row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    heading = not args.json
    for name in args.models:
        for row in measure(name, args.seconds, args.repeats, args.precision):
            if heading:
                print(" | ".join(row))
            heading = False
            cells = [value if isinstance(value, str) else f"{value:.4g}" for value in row.values()]
            print(json.dumps(row) if args.json else " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
