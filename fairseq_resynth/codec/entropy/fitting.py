"""Fitting of the context model: counts for the tables, training in floating point for the network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from fairseq_resynth.codec.entropy.entropy_model import ORDERS, EntropyModel, Settings
from fairseq_resynth.codec.entropy.integer_math import GATE_BITS
from fairseq_resynth.codec.entropy.network import IntegerNetwork
from fairseq_resynth.codec.entropy.ngrams import (
    RATE_CLASSES,
    NgramTables,
    context_key,
    fit_tables,
    rate_keys,
)
from fairseq_resynth.data.storage.messages import shown
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.data.units import collapse_runs

Run = tuple[np.ndarray, np.ndarray]  # units without repetitions, lengths of their runs
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
# Of each unit: how many others may stand for it, how much it stands for itself at first, and the number of
# observations that this belief is worth.
_CONFUSED, _UNCONFUSED, _CONFUSION_STRENGTH = 20, 0.95, 1.0
# How often a context of each order must occur to be kept: long contexts seen once only make the file larger.
_LEAST = {
    "unit": (1, 1, 1, 2, 2),
    "run": (1, 1, 1),
    "rate": (1, 1),
    "f0": (1, 1, 1, 2),
    "f0_by_unit": (1, 1, 2),
}


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is trained."""

    hidden_size: int = 256  # gated recurrent units; 0 leaves the network out
    embedding_size: int = 96  # width of the inputs
    run_size: int = 64  # width of the layer before the lengths of runs
    longest_run: int = 24  # longer runs are alike to the network
    updates: int = 1500
    batch_size: int = 32  # utterances
    learning_rate: float = 4e-3  # the peak, after 50 steps; then it falls linearly to zero
    dropout: float = 0.5  # of the state before the outputs; less at the inputs
    hidden_inputs: float = 0.1  # the share of units, and of lengths, that the network does not see
    seed: int = 0


class ContextNetwork(nn.Module):
    """Predicts unit and length of each run from the runs before it, in floating point, for training."""

    def __init__(self, num_units: int, options: TrainingOptions):
        super().__init__()
        hidden, size, runs = options.hidden_size, options.embedding_size, options.longest_run + 1
        self.dropout, self.hidden_inputs = options.dropout, options.hidden_inputs
        self.longest_run = options.longest_run
        self.unit_embedding = nn.Embedding(num_units + 1, size)
        self.run_embedding = nn.Embedding(runs, size)
        self.recurrence = nn.GRU(size, hidden, batch_first=True)
        self.unit_output = nn.Linear(hidden, num_units + 1)
        self.run_hidden = nn.Linear(hidden, options.run_size)
        self.run_hidden_unit = nn.Embedding(num_units + 1, options.run_size)
        self.run_output = nn.Linear(options.run_size, runs)

    def forward(self, units: Tensor, runs: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of the units, (B, L, A + 1), and of the lengths of runs, (B, L, R + 1), for (B, L) int64
        units, of which A ends the utterance, and lengths in frames, at most R."""
        end = self.unit_embedding.num_embeddings - 1
        past_units = F.pad(units[:, :-1], (1, 0), value=end)
        past_runs = F.pad(runs[:, :-1], (1, 0), value=0)
        inputs = self._hide(self.unit_embedding(past_units))
        inputs = inputs + self._hide(self.run_embedding(past_runs))
        states, _ = self.recurrence(F.dropout(inputs, 0.4 * self.dropout, self.training))
        states = F.dropout(states, self.dropout, self.training)
        layer = F.relu(self.run_hidden(states) + self.run_hidden_unit(units))
        layer = F.dropout(layer, self.dropout / 2, self.training)
        return self.unit_output(states), self.run_output(layer)

    def _hide(self, embedded: Tensor) -> Tensor:
        """Zeroes some of the (B, L, E) inputs in training, so that no prediction hangs on a single one."""
        if not self.training:
            return embedded
        return embedded * (torch.rand(embedded.shape[:2]) >= self.hidden_inputs)[..., None]

    def code_length(self, units: Tensor, runs: Tensor, lengths: Tensor) -> Tensor:
        """The mean code length of a run in nats; `lengths` (B,) counts the runs with the end. This is what
        the coder will spend, as far as the network alone decides it, so no other loss is needed."""
        unit_logits, run_logits = self(units, runs)
        # A run never has the unit of the run before; the mixer masks it.
        possible = unit_logits[:, 1:].scatter(2, units[:, :-1, None], -1e4)
        unit_logits = torch.cat([unit_logits[:, :1], possible], dim=1)
        present = (torch.arange(units.shape[1]) < lengths[:, None]).float()
        has_run = present * (units != unit_logits.shape[2] - 1)
        unit_cost = F.cross_entropy(unit_logits.transpose(1, 2), units, reduction="none")
        run_cost = F.cross_entropy(run_logits.transpose(1, 2), runs, reduction="none")
        return ((unit_cost * present).sum() + (run_cost * has_run).sum()) / present.sum()


def default_updates(num_utterances: int) -> int:
    """The number of updates for a set: 36 passes in batches of 32, at least 250 and at most 4000."""
    return min(max(num_utterances * 36 // 32, 250), 4000)


def _batches(
    rows: Sequence[Run], options: TrainingOptions, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Yields lists of row numbers without end; the utterances of a batch are of similar length."""
    size, batches = options.batch_size, []
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(order), size * 16):
            part = sorted(order[start : start + size * 16], key=lambda row: len(rows[row][0]))
            batches += [part[first : first + size] for first in range(0, len(part), size)]
        yield from (batches[index] for index in rng.permutation(len(batches)))
        batches.clear()


def _collate(rows: Sequence[Run], end: int, longest_run: int) -> tuple[Tensor, Tensor, Tensor]:
    units = [torch.from_numpy(np.r_[units, end]) for units, _ in rows]
    runs = [torch.from_numpy(np.r_[np.minimum(runs, longest_run), 0]) for _, runs in rows]
    lengths = torch.tensor([len(row) for row in units])
    return pad_sequence(units, True, end), pad_sequence(runs, True), lengths


def train_network(rows: Sequence[Run], num_units: int, options: TrainingOptions) -> ContextNetwork:
    """Trains the network on the runs of each utterance; `num_units` is A."""
    torch.manual_seed(options.seed)
    network = ContextNetwork(num_units, options)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / 50) * max(1 - done / options.updates, 0.01)
    )
    batches = _batches(rows, options, np.random.default_rng(options.seed))
    with tqdm(range(options.updates), desc="network", unit="step") as progress:
        for _ in progress:
            batch = [rows[row] for row in next(batches)]
            loss = network.code_length(*_collate(batch, num_units, options.longest_run))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.set_postfix(bits=f"{loss.item() / np.log(2):.2f}", refresh=False)
    return network.eval()


def to_integers(network: ContextNetwork) -> IntegerNetwork:
    """Rounds the weights to Q12; products of embeddings and input weights become tables, logs base 2."""
    recurrence, hidden = network.recurrence, network.recurrence.hidden_size
    bias = recurrence.bias_ih_l0.clone()
    bias[: 2 * hidden] += recurrence.bias_hh_l0[: 2 * hidden]
    arrays = {
        "unit_input": network.unit_embedding.weight @ recurrence.weight_ih_l0.T + bias,
        "run_input": network.run_embedding.weight @ recurrence.weight_ih_l0.T,
        "recurrent": recurrence.weight_hh_l0,
        "recurrent_bias": recurrence.bias_hh_l0[2 * hidden :],
        "unit_output": network.unit_output.weight / np.log(2),
        "unit_output_bias": network.unit_output.bias / np.log(2),
        "run_hidden": network.run_hidden.weight,
        "run_hidden_unit": network.run_hidden_unit.weight + network.run_hidden.bias,
        "run_output": network.run_output.weight / np.log(2),
        "run_output_bias": network.run_output.bias / np.log(2),
    }
    limit = (1 << 15) - 1  # stored as int16; a weight of 8 is far beyond what training reaches
    rounded = {}
    for name, array in arrays.items():
        scaled = array.detach().double() * (1 << GATE_BITS)
        rounded[name] = scaled.round().clamp(-limit, limit).numpy().astype(np.int32)
    return IntegerNetwork(**rounded)


def _confusions(runs: Sequence[Run], num_units: int) -> dict[str, np.ndarray]:
    """Which units another voice may have in place of each: those with the most similar neighbors."""
    seen = np.unique(np.concatenate([units for units, _ in runs]))
    neighbors = np.zeros((len(seen), 2, len(seen)), np.float32)
    for units, _ in runs:
        places = np.searchsorted(seen, units)
        np.add.at(neighbors, (places[1:], 0, places[:-1]), 1)
        np.add.at(neighbors, (places[:-1], 1, places[1:]), 1)
    flat = neighbors.reshape(len(seen), -1)
    flat /= np.maximum(flat.sum(axis=1, keepdims=True), 1)
    np.sqrt(flat, out=flat)
    similarity = flat @ flat.T  # Bhattacharyya's coefficients
    np.fill_diagonal(similarity, 2)  # each unit comes first among its own
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : _CONFUSED + 1]
    closeness = np.take_along_axis(similarity, nearest, axis=1)[:, 1:].astype(np.float64) ** 4
    total = closeness.sum(axis=1, keepdims=True)
    # Units that never occur stand for themselves alone.
    units = (np.arange(num_units)[:, None] + np.arange(nearest.shape[1])) % num_units
    shares = np.zeros(units.shape)
    shares[:, 0] = _UNCONFUSED
    units[seen] = seen[nearest]
    shares[seen, 1:] = (1 - _UNCONFUSED) * closeness / np.maximum(total, 1e-9)
    counts = np.round(shares * _CONFUSION_STRENGTH * 65536).astype(np.int64)
    return {"units": units.astype(np.int64), "counts": counts}


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
    end, no_unit = settings.num_f0_codes, settings.num_units
    codes, units = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for utterance in utterances:
        if utterance.f0_codes is not None:
            middle = settings.middle_units(np.arange(len(utterance.f0_codes)))
            codes.append(utterance.f0_codes)
            units.append(
                np.append(utterance.units, no_unit)[np.minimum(middle, len(utterance.units))]
            )
    past = [_past(codes, by, end) for by in range(1, ORDERS["f0"])]
    here, before = (_past(units, by, no_unit) for by in range(2))
    flat = np.concatenate(codes)
    return {
        "f0": _fit("f0", 0, past, [end + 1] * len(past), flat),
        "f0_by_unit": _fit("f0_by_unit", here, [past[0], before], [end + 1, no_unit + 1], flat),
    }


def _f0_end(utterances: Sequence[Utterance], settings: Settings) -> np.ndarray:
    counts = np.ones((settings.units_per_period, 3, 2), dtype=np.int64)
    for utterance in utterances:
        if utterance.f0_codes is None:
            continue
        left = len(utterance.units) % settings.units_per_period
        extra = len(utterance.f0_codes) - settings.whole_f0_codes(len(utterance.units))
        for place in range(max(extra, -1) + 1):
            counts[left, min(place, 2), int(place == extra)] += 4
    return np.minimum(counts, 1 << 20)


def fit_entropy_model(
    utterances: Sequence[Utterance], settings: Settings, options: TrainingOptions
) -> EntropyModel:
    """Fits the tables, and trains the network unless its size or its updates are 0. The network's longest
    run is that of the settings. Raises ValueError if no utterance has a unit, or a unit or an F0 code is too
    large for the settings."""
    utterances = [utterance for utterance in utterances if len(utterance.units)]
    _check(utterances, settings)
    runs = [collapse_runs(utterance.units) for utterance in utterances]
    end, longest = settings.num_units, settings.longest_run
    network = None
    if options.hidden_size and options.updates:
        options = replace(options, longest_run=longest)
        network = to_integers(train_network(runs, end, options))
    tables = {"unit": _unit_tables(runs, end), **_run_tables(runs, end, longest)}
    tables |= _f0_tables(utterances, settings)
    weights, rates = (
        {name: np.round(np.array(row) * 65536).astype(np.int64) for name, row in rows.items()}
        for rows in (_WEIGHTS[network is not None], _RATES)
    )
    ends, confusions = _f0_end(utterances, settings), _confusions(runs, end)
    return EntropyModel(settings, tables, weights, rates, ends, network, confusions)


def _check(utterances: Sequence[Utterance], settings: Settings) -> None:
    if not utterances:
        raise ValueError("found no utterance with a unit, expected at least one to fit on")
    for utterance in utterances:
        codes = utterance.f0_codes if utterance.f0_codes is not None else np.zeros(0, np.int64)
        largest = int(utterance.units.max()), int(codes.max(initial=-1))
        if largest[0] >= settings.num_units or largest[1] >= settings.num_f0_codes:
            raise ValueError(
                f"{shown(utterance.name)}: found unit {largest[0]} and F0 code {largest[1]}, expected "
                f"at most {settings.num_units - 1} and {settings.num_f0_codes - 1}"
            )
