"""Decoding a 10 s .rsyn file end to end beside the generator's own time, one thread, one run.

    python benchmarks/codec_decoding.py CODES [--repeats 3] [--json]

CODES is a file of units at 50 Hz that the context model is fitted on and the utterance is cut from (lines
`1 2 3`, `name|1 2 3` or dicts). The generator is the paper's, with random weights, which time does not
depend on; the pitch codes are random. `generator` decodes the same streams from arrays. The two take turns;
processor seconds, the fastest of the repeats.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel, Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.format.bitstream import SpeechCode, write_bytes
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.data.unit_files import read_unit_file
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.resynthesizer import Resynthesizer

SECONDS = 10


def processor_seconds(function: Callable[[], object]) -> float:
    """Returns the processor seconds of one call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> None:
    """Prints both times and their ratio, with tables alone and with the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codes", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = read_unit_file(args.codes)[:200]
    num_units = 1 + max(int(row.units.max()) for row in rows)
    utterances = [
        Utterance(row.units, rng.integers(20, size=-(-len(row.units) // 4)), name=row.name)
        for row in rows
    ]
    streams = StreamSpec(320, num_units, 1280, 20, ("one", "two"))
    config = UnitHifiganSizes()
    system = Resynthesizer(Bundle(build_vocoder(config, streams), config, streams))
    units = np.concatenate([row.units for row in rows])[: SECONDS * 50]
    codes = rng.integers(20, size=-(-len(units) // 4))
    figures = {}
    for name, hidden_size, updates in (("tables", 0, 1), ("network", 256, 5)):
        options = TrainingOptions(hidden_size=hidden_size, updates=updates)
        model: EntropyModel = fit_entropy_model(
            utterances, Settings(num_units, num_f0_codes=20), options
        )
        codec = SpeechCodec(system, model)
        code = SpeechCode(units, codes, codec._speaker_field("one"), len(units) * 320)
        data = write_bytes(model, codec.identity, code)
        codec.decode(data)  # compiles
        times = [
            (
                processor_seconds(lambda data=data, codec=codec: codec.decode(data)),
                processor_seconds(lambda: system.decode(units[None], codes[None], "one")),
            )
            for _ in range(args.repeats)
        ]
        whole, generator = (min(column) for column in zip(*times, strict=True))
        figures[name] = {"decode": whole, "generator": generator, "ratio": whole / generator}
    if args.json:
        print(json.dumps(figures))
        return
    for name, row in figures.items():
        print(f"{name:>8}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
