"""Fitting of the context model on streams: counts, and the network."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fairseq_resynth.codec.entropy import contexts
from fairseq_resynth.codec.entropy.entropy_model import ORDERS, EntropyModel, Settings
from fairseq_resynth.codec.entropy.network import IntegerNetwork
from fairseq_resynth.codec.entropy.network_training import (
    TrainingOptions,
    to_integers,
    train_network,
)
from fairseq_resynth.codec.entropy.ngrams import NgramTables, fit_tables
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.data.units import collapse_runs

logger = logging.getLogger(__name__)

# Where the mixers begin: the tables' orders, then the network. Chosen on held-out released codes.
_WEIGHTS = {
    False: {"unit": (0.2, 0.35, 0.2, 0.2), "run": (0.1, 0.7, 0.3), "f0": (0.2, 0.3, 0.1, 0.3, 0.2)},
    True: {
        "unit": (0.0, 0.08, 0.03, 0.09, 0.74),
        "run": (0.0, 0.3, -0.05, 0.78),
        "f0": (0.2, 0.3, 0.1, 0.3, 0.2),
    },
}
_RATES = {"unit": (0.0005, 0.2), "run": (0.002, 0.0), "f0": (0.002, 0.05)}
_LEAST = {
    "unit": (1, 1, 1, 2, 2),
    "run": (1, 1, 1),
    "rate": (1, 1),
    "f0": (1, 1, 1, 2),
    "f0_by_unit": (1, 1, 2),
}


def _shifted(rows: Sequence[np.ndarray], by: int, filler: int) -> np.ndarray:
    """Concatenates the rows, each moved `by` places to the right."""
    moved = [np.concatenate([np.full(by, filler), row])[: len(row)] for row in rows]
    return np.concatenate(moved).astype(np.int64)


def _unit_tables(runs: Sequence[tuple[np.ndarray, np.ndarray]], end: int) -> NgramTables:
    rows = [np.r_[units, end] for units, _ in runs]
    past = [_shifted(rows, by, end) for by in range(1, ORDERS["unit"])]
    orders = [
        contexts.unit_context.py_func(order, past, end + 1) for order in range(ORDERS["unit"])
    ]
    return fit_tables(orders, np.concatenate(rows), _LEAST["unit"])


def _run_tables(
    runs: Sequence[tuple[np.ndarray, np.ndarray]], end: int, longest: int
) -> tuple[NgramTables, NgramTables]:
    """Counts whether a run ends after each of its frames."""
    lengths = np.concatenate([row for _, row in runs])
    here = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.arange(len(here)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    ends = (frame == lengths[here]).astype(np.int64)
    frame = np.minimum(frame, longest)
    units = [_shifted([row for row, _ in runs], by, end)[here] for by in range(2)]
    past = [
        np.minimum(_shifted([row for _, row in runs], by, 0), contexts.RATE_CLASSES - 1)[here]
        for by in (1, 2)
    ]
    by_unit = [contexts.run_context.py_func(order, frame, units, end + 1) for order in range(3)]
    by_rate = [
        contexts.rate_context.py_func(order, frame, *past, units[0], end + 1) for order in range(2)
    ]
    return (
        fit_tables(by_unit, ends, _LEAST["run"]),
        fit_tables(by_rate, ends, _LEAST["rate"]),
    )


def _f0_tables(
    utterances: Sequence[Utterance], settings: Settings
) -> tuple[NgramTables, NgramTables]:
    span, end = settings.units_per_f0_code, settings.num_f0_codes
    codes, units = [], []
    for utterance in utterances:
        if utterance.f0_codes is None or not len(utterance.f0_codes):
            continue
        size = len(utterance.f0_codes)
        middle = utterance.units[span // 2 :: span][:size]
        codes.append(utterance.f0_codes)
        units.append(np.concatenate([middle, np.full(size - len(middle), settings.num_units)]))
    if not codes:
        codes, units = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    past = [_shifted(codes, by, end) for by in range(1, ORDERS["f0"])]
    here, before = (_shifted(units, by, settings.num_units) for by in range(2))
    flat = np.concatenate(codes)
    by_code = [contexts.f0_context.py_func(order, past, end + 1) for order in range(ORDERS["f0"])]
    by_unit = [
        contexts.f0_unit_context.py_func(
            order, here, before, past[0], settings.num_units + 1, end + 1
        )
        for order in range(ORDERS["f0_by_unit"])
    ]
    return (
        fit_tables(by_code, flat, _LEAST["f0"]),
        fit_tables(by_unit, flat, _LEAST["f0_by_unit"]),
    )


def _f0_end(utterances: Sequence[Utterance], settings: Settings) -> np.ndarray:
    span = settings.units_per_f0_code
    counts = np.ones((span, 3, 2), dtype=np.int64)
    for utterance in utterances:
        if utterance.f0_codes is None:
            continue
        whole, left = divmod(len(utterance.units), span)
        extra = len(utterance.f0_codes) - whole
        for place in range(max(extra, -1) + 1):
            counts[left, min(place, 2), int(place == extra)] += 4
    return np.minimum(counts, 1 << 20)


def _fixed_point(values: Sequence[float]) -> np.ndarray:
    return np.round(np.array(values) * 65536).astype(np.int64)


def _network(
    runs: Sequence[tuple[np.ndarray, np.ndarray]], num_units: int, options: TrainingOptions
) -> IntegerNetwork | None:
    if not options.hidden_size or not options.updates or not runs:
        return None
    return to_integers(train_network(runs, num_units, options))


def fit_entropy_model(
    utterances: Sequence[Utterance], settings: Settings, options: TrainingOptions
) -> EntropyModel:
    """Fits tables and network.

    Args:
        utterances: streams; their units and F0 codes must be among the settings'.
        settings: sizes of the streams.
        options: of the network's training.

    Raises:
        ValueError: no utterance, or a unit or an F0 code beyond the settings.
    """
    utterances = [utterance for utterance in utterances if len(utterance.units)]
    _check(utterances, settings)
    runs = [collapse_runs(utterance.units) for utterance in utterances]
    end, longest = settings.num_units, settings.longest_run
    network = _network(runs, end, replace(options, longest_run=longest))
    run, rate = _run_tables(runs, end, longest)
    f0, f0_by_unit = _f0_tables(utterances, settings)
    tables = {"unit": _unit_tables(runs, end), "run": run, "rate": rate}
    weights = _WEIGHTS[network is not None]
    return EntropyModel(
        settings,
        {**tables, "f0": f0, "f0_by_unit": f0_by_unit},
        {name: _fixed_point(values) for name, values in weights.items()},
        {name: _fixed_point(values) for name, values in _RATES.items()},
        _f0_end(utterances, settings),
        network,
    )


def _check(utterances: Sequence[Utterance], settings: Settings) -> None:
    if not utterances:
        raise ValueError("there is no utterance with a unit to fit on")
    for utterance in utterances:
        codes = utterance.f0_codes if utterance.f0_codes is not None else np.zeros(0, np.int64)
        largest = int(utterance.units.max()), int(codes.max(initial=-1))
        if largest[0] >= settings.num_units or largest[1] >= settings.num_f0_codes:
            raise ValueError(
                f"{utterance.name}: found unit {largest[0]} and F0 code {largest[1]}, expected at most "
                f"{settings.num_units - 1} and {settings.num_f0_codes - 1}"
            )
