"""Writing `{split}.units`, block by block: what `resynth quantize` does."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import LinesPart, RowsOutcome, Shard
from fairseq_resynth.data.units import format_integers
from fairseq_resynth.encoders.content import ContentEncoder, VqvaeUnits
from fairseq_resynth.preparation.kmeans import read_batches

logger = logging.getLogger(__name__)
# Rows that are batched among themselves and written at once. An interrupted run repeats less than one
# block, and since its batches are the same again, so are its bytes.
BLOCK_ROWS = 64
UnitEncoder = ContentEncoder | VqvaeUnits


def _encode(
    part: LinesPart,
    encoder: UnitEncoder,
    rows: Sequence[int],
    batch_samples: int,
    outcome: RowsOutcome,
) -> tuple[dict[int, str], dict[int, bytes]]:
    """A line for each row, empty where it failed, and the stamps of the rows that did not fail."""
    stamps = {row: part.stamp(row) for row in rows}  # before the recordings are read
    units: dict[int, np.ndarray] = {}
    for wavs in read_batches(
        part.manifest, rows, batch_samples, encoder.min_samples, outcome.failed
    ):
        units |= zip(wavs, encoder.encode_batch(list(wavs.values())), strict=True)
    outcome.written += len(units)
    lines = {row: format_integers(units[row]) if row in units else "" for row in rows}
    return lines, {row: stamps[row] for row in units}


def quantize_split(
    manifest: Manifest,
    target: Path,
    encoder: UnitEncoder,
    shard: Shard,
    batch_samples: int,
    progress: Callable[[int], Any] = lambda rows: None,
) -> RowsOutcome:
    """Writes `{split}.units`, or this shard's part of it, and `units.json` beside it.

    Rows that fail stay empty in the part and are tried again by the next run. `batch_samples` padded samples
    are encoded together; 0: one file at a time. `progress` is called with the number of rows done since the
    last call.
    """
    record, settings = Record(target.parent), encoder.description
    part = LinesPart(record, target.name, manifest, shard, settings, {"units.json": settings})
    rows, outcome = part.rows, part.finished()
    if outcome is not None:
        progress(len(rows))
        return outcome
    outcome = RowsOutcome(rows=len(rows))
    with part:
        done = part.keep_lines(BLOCK_ROWS)
        again = [row for row in rows[:done] if not part.is_done(row)]
        outcome.reused = done - len(again)
        if done:
            logger.info("%s: %d of %d rows are reused", target.name, outcome.reused, len(rows))
        if again:  # they failed before, or their recordings have changed
            part.replace(*_encode(part, encoder, again, 0, outcome))
        progress(done)
        for start in range(done, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            part.append(*_encode(part, encoder, block, batch_samples, outcome))
            progress(len(block))
        outcome.joined = part.close(outcome.failed)
    return outcome


def foreign_units(data: Path) -> list[str]:
    """The `.units` files of a data folder that another encoder made than the one in `units.json`."""
    path, record = data / "units.json", Record(data)
    if not path.is_file():
        return []
    settings = record.key(read_json(path))
    names = sorted(file.name for file in data.glob("*.units"))
    made_by = {name: [facts["settings"] for facts in record.facts(name)] for name in names}
    return [name for name, keys in made_by.items() if keys and settings not in keys]
