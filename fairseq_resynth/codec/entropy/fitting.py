"""Fitting of the context model on streams: counts for the tables, training for the network."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import ORDERS, EntropyModel, Settings
from fairseq_resynth.codec.entropy.network_training import (
    Run,
    TrainingOptions,
    to_integers,
    train_network,
)
from fairseq_resynth.codec.entropy.ngrams import (
    RATE_CLASSES,
    NgramTables,
    context_key,
    fit_tables,
    rate_keys,
)
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.data.units import collapse_runs

# Where the mixers begin, without and with a network: a weight per order of the tables, then the network's.
# Chosen on held-out parts of the released codes; learning while coding corrects them for each file.
_WEIGHTS = {
    False: {"unit": (0.2, 0.35, 0.2, 0.2), "run": (0.1, 0.7, 0.3), "f0": (0.2, 0.3, 0.1, 0.3, 0.2)},
    True: {
        "unit": (0.0, 0.08, 0.03, 0.09, 0.74),
        "run": (0.0, 0.3, -0.05, 0.78),
        "f0": (0.2, 0.3, 0.1, 0.3, 0.2),
    },
}
_RATES = {"unit": (0.0005, 0.2), "run": (0.002, 0.0), "f0": (0.002, 0.05)}
# How often a context of each order must occur to be kept: long contexts seen once only make the file larger.
_LEAST = {
    "unit": (1, 1, 1, 2, 2),
    "run": (1, 1, 1),
    "rate": (1, 1),
    "f0": (1, 1, 1, 2),
    "f0_by_unit": (1, 1, 2),
}


def _past(rows: Sequence[np.ndarray], by: int, filler: int) -> np.ndarray:
    """Concatenates the rows, each moved `by` places to the right: what stood `by` places before."""
    moved = [np.concatenate([np.full(by, filler), row])[: len(row)] for row in rows]
    return np.concatenate(moved).astype(np.int64)


def _fit(
    name: str, start: np.ndarray | int, context: list[np.ndarray], radices: list[int], symbols
) -> NgramTables:
    keys = [
        np.broadcast_to(context_key(order, start, context, radices), symbols.shape)
        for order in range(ORDERS[name])
    ]
    return fit_tables(keys, symbols, _LEAST[name])


def _unit_tables(runs: Sequence[Run], end: int) -> NgramTables:
    rows = [np.r_[units, end] for units, _ in runs]
    past = [_past(rows, by, end) for by in range(1, ORDERS["unit"])]
    return _fit("unit", 0, past, [end + 1] * len(past), np.concatenate(rows))


def _run_tables(runs: Sequence[Run], end: int, longest: int) -> dict[str, NgramTables]:
    """Counts whether a run ends after each of its frames."""
    units, lengths = [row for row, _ in runs], [row for _, row in runs]
    flat = np.concatenate(lengths)
    here = np.repeat(np.arange(len(flat)), flat)  # the run of each frame
    frame = np.arange(len(here)) - np.repeat(np.cumsum(flat) - flat, flat) + 1
    ends = (frame == flat[here]).astype(np.int64)
    frame = np.minimum(frame, longest)
    past_units = [_past(units, by, end)[here] for by in range(2)]
    before, earlier = (np.minimum(_past(lengths, by, 0), RATE_CLASSES - 1)[here] for by in (1, 2))
    by_rate = rate_keys(frame, before, earlier, past_units[0], end + 1)
    return {
        "run": _fit("run", frame, past_units, [end + 1] * 2, ends),
        "rate": fit_tables(by_rate, ends, _LEAST["rate"]),
    }


def _f0_tables(utterances: Sequence[Utterance], settings: Settings) -> dict[str, NgramTables]:
    span, end, no_unit = settings.units_per_f0_code, settings.num_f0_codes, settings.num_units
    codes, units = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for utterance in utterances:
        if utterance.f0_codes is not None:
            size = len(utterance.f0_codes)
            middle = utterance.units[span // 2 :: span][:size]
            codes.append(utterance.f0_codes)
            units.append(np.concatenate([middle, np.full(size - len(middle), no_unit)]))
    past = [_past(codes, by, end) for by in range(1, ORDERS["f0"])]
    here, before = (_past(units, by, no_unit) for by in range(2))
    flat = np.concatenate(codes)
    return {
        "f0": _fit("f0", 0, past, [end + 1] * len(past), flat),
        "f0_by_unit": _fit("f0_by_unit", here, [past[0], before], [end + 1, no_unit + 1], flat),
    }


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


def fit_entropy_model(
    utterances: Sequence[Utterance], settings: Settings, options: TrainingOptions
) -> EntropyModel:
    """Fits the tables, and trains the network unless its size or its updates are 0.

    The network's longest run is that of the settings. Raises ValueError if no utterance has a unit, or a
    unit or an F0 code is too large for the settings.
    """
    utterances = [utterance for utterance in utterances if len(utterance.units)]
    _check(utterances, settings)
    runs = [collapse_runs(utterance.units) for utterance in utterances]
    end, longest = settings.num_units, settings.longest_run
    network = None
    if options.hidden_size and options.updates:
        options = replace(options, longest_run=longest)
        network = to_integers(train_network(runs, end, options))
    return EntropyModel(
        settings,
        {
            "unit": _unit_tables(runs, end),
            **_run_tables(runs, end, longest),
            **_f0_tables(utterances, settings),
        },
        {name: _fixed_point(values) for name, values in _WEIGHTS[network is not None].items()},
        {name: _fixed_point(values) for name, values in _RATES.items()},
        _f0_end(utterances, settings),
        network,
    )


def _check(utterances: Sequence[Utterance], settings: Settings) -> None:
    if not utterances:
        raise ValueError("found no utterance with a unit, expected at least one to fit on")
    for utterance in utterances:
        codes = utterance.f0_codes if utterance.f0_codes is not None else np.zeros(0, np.int64)
        largest = int(utterance.units.max()), int(codes.max(initial=-1))
        if largest[0] >= settings.num_units or largest[1] >= settings.num_f0_codes:
            raise ValueError(
                f"{utterance.name}: found unit {largest[0]} and F0 code {largest[1]}, expected at most "
                f"{settings.num_units - 1} and {settings.num_f0_codes - 1}"
            )
