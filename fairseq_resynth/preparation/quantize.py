"""Writing `{split}.units`, block by block: what `resynth quantize` does."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import LinesPart, RowsOutcome, Shard
from fairseq_resynth.data.units import format_integers
from fairseq_resynth.encoders.frames import plan_batches, read_speech

logger = logging.getLogger(__name__)
# Rows that are batched among themselves and written at once. An interrupted run repeats less than one
# block, and since its batches are the same again, so are its bytes.
BLOCK_ROWS = 64


class UnitEncoder(Protocol):
    """What quantization needs of `encoders.content.ContentEncoder`."""

    description: dict[str, Any]
    min_samples: int

    def encode_batch(self, wavs: Sequence[Tensor]) -> list[np.ndarray]:
        """Waveforms (T,) to units (U,)."""


class _Rows:
    """Encodes rows of a manifest and collects the reasons of those that fail."""

    def __init__(self, part: LinesPart, encoder: UnitEncoder, outcome: RowsOutcome):
        self._part, self._encoder, self._outcome = part, encoder, outcome

    def encode(
        self, rows: Sequence[int], batch_samples: int
    ) -> tuple[dict[int, str], dict[int, bytes]]:
        """A line for each row, empty where it failed, and the stamps of the rows that did not fail."""
        manifest = self._part.manifest
        lines, stamps = dict.fromkeys(rows, ""), {}
        for batch in plan_batches(manifest.num_samples, rows, batch_samples):
            wavs = {}
            for row in batch:
                stamp = self._part.stamp(row)
                try:
                    wavs[row] = read_speech(manifest.path(row), self._encoder.min_samples)
                    stamps[row] = stamp
                except (FileNotFoundError, ValueError) as error:
                    self._outcome.failed[manifest.paths[row]] = str(error)
            if wavs:
                units = self._encoder.encode_batch(list(wavs.values()))
                lines |= {row: format_integers(u) for row, u in zip(wavs, units, strict=True)}
                self._outcome.written += len(wavs)
        return lines, stamps


def _blocks(rows: range, done: int) -> Iterator[range]:
    for start in range(done, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


def quantize_split(
    manifest: Manifest,
    target: Path,
    encoder: UnitEncoder,
    shard: Shard,
    batch_samples: int,
    progress: Callable[[int], Any] = lambda rows: None,
) -> RowsOutcome:
    """Writes `{split}.units`, or this shard's part of it, and `units.json` beside it.

    Args:
        manifest: manifest of the split.
        target: the `.units` file.
        encoder: speech to units.
        shard: which rows.
        batch_samples: padded samples encoded together; 0: one file at a time.
        progress: called with the number of rows done since the last call.

    Returns:
        What was done. Rows that failed stay empty in the part and are tried again by the next run.
    """
    described = {"units.json": encoder.description}
    record = Record(target.parent)
    part = LinesPart(record, target.name, manifest, shard, encoder.description, described)
    rows, outcome = part.rows, part.finished()
    if outcome is not None:
        progress(len(rows))
        return outcome
    outcome = RowsOutcome(rows=len(rows))
    encoding = _Rows(part, encoder, outcome)
    with part:
        done = part.keep_lines(BLOCK_ROWS)
        again = [row for row in rows[:done] if not part.is_done(row)]
        outcome.reused = done - len(again)
        if done:
            logger.info("%s: %d of %d rows are reused", target.name, outcome.reused, len(rows))
        if again:  # they failed before, or their recordings have changed
            part.replace(*encoding.encode(again, 0))
        progress(done)
        for block in _blocks(rows, done):
            lines, stamps = encoding.encode(block, batch_samples)
            part.append(lines, stamps)
            progress(len(block))
        outcome.joined = part.close(outcome.failed)
    return outcome


def foreign_units(data: Path) -> list[str]:
    """The `.units` files of a data folder that another encoder made than the one in `units.json`."""
    path, record = data / "units.json", Record(data)
    if not path.is_file():
        return []
    settings = record.key(read_json(path))
    made = {file.name: record.facts(file.name) for file in sorted(data.glob("*.units"))}
    return [
        name
        for name, facts in made.items()
        if facts and settings not in [one["settings"] for one in facts]
    ]
