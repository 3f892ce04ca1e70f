"""Context models that the codec's tests share, fitted on excerpts of the released codes."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel, Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.entropy.network import IntegerNetwork
from fairseq_resynth.data.streams import Utterance, read_utterances

DATA = Path(__file__).parent / "data"
SPEECH = Path(__file__).resolve().parents[2] / "examples" / "asterisk" / "speech"
NO_NETWORK = TrainingOptions(hidden_size=0)


@lru_cache
def released(corpus: str) -> tuple[Utterance, ...]:
    """Utterances of the released HuBERT codes: `lj` or `vctk`."""
    return tuple(read_utterances(DATA / f"{corpus}_hubert100.txt"))


def with_f0(utterance: Utterance, seed: int = 0) -> Utterance:
    """Adds F0 codes of a random walk that rests at 0 where the unit is one of silence."""
    rng = np.random.default_rng(seed)
    codes, code = [], 10
    for unit in utterance.units[2::4].tolist():
        code = int(np.clip(code + rng.integers(-2, 3), 1, 19))
        codes.append(0 if unit in (12, 20, 63, 71, 72) else code)
    codes += [0] * (-(-len(utterance.units) // 4) - len(codes))
    return replace(utterance, f0_codes=np.array(codes, np.int64))


@lru_cache
def tables_model(num_f0_codes: int = 20) -> EntropyModel:
    """Tables of 60 utterances of VCTK, without a network."""
    rows = [with_f0(row, seed) for seed, row in enumerate(released("vctk")[:60])]
    if not num_f0_codes:
        rows = list(released("vctk")[:60])
    return fit_entropy_model(rows, Settings(100, num_f0_codes=num_f0_codes), NO_NETWORK)


@lru_cache
def network_model() -> EntropyModel:
    """The same tables with a network and confusions of random integers, the same on every machine."""
    rng, hidden, depth, runs = np.random.default_rng(5), 24, 8, 25

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(-900, 900, shape).astype(np.int32)

    network = IntegerNetwork(
        unit_input=draw(101, 3 * hidden),
        run_input=draw(runs, 3 * hidden),
        recurrent=draw(3 * hidden, hidden),
        recurrent_bias=draw(hidden),
        unit_output=draw(101, hidden),
        unit_output_bias=draw(101),
        run_hidden=draw(depth, hidden),
        run_hidden_unit=draw(101, depth),
        run_output=draw(runs, depth),
        run_output_bias=draw(runs),
    )
    model = tables_model()
    weights = {
        "unit": np.r_[model.weights["unit"] // 2, 1 << 15],
        "run": np.r_[model.weights["run"] // 2, 1 << 15],
    }
    confusions = {
        "units": (np.arange(100)[:, None] + rng.integers(1, 100, (100, 8)).cumsum(axis=1)) % 100,
        "counts": rng.integers(1, 1 << 16, (100, 8)),
    }
    weights = {**model.weights, **weights}
    return replace(model, network=network, weights=weights, confusions=confusions)


def speech_files(count: int) -> list[Path]:
    """Some of the embedded recordings, the shortest first."""
    return sorted(SPEECH.rglob("*.flac"), key=lambda path: (path.stat().st_size, path.name))[5:][
        :count
    ]
