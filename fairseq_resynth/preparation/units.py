"""Content units: `{split}.units`, block by block, from recordings that are read ahead of the encoder."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.manifest import Manifest, check_samples
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.parts import LinesPart, RowsOutcome
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.workers import progress, read_ahead, skip
from fairseq_resynth.data.units import format_integers
from fairseq_resynth.encoders.content import ContentEncoder, VqvaeUnits
from fairseq_resynth.encoders.frames import plan_batches, read_speech

logger = logging.getLogger(__name__)
# Rows that are batched among themselves and written at once. An interrupted run repeats less than one
# block, and since its batches are the same again, so are its bytes.
BLOCK_ROWS = 256
MAX_AHEAD = 32_000_000  # samples that are read ahead at most: 128 MB
MIN_AHEAD = 10 * SAMPLE_RATE  # per thread


@dataclass(frozen=True)
class Reading:
    """How recordings are read for an encoder."""

    batch_samples: int = 0  # padded samples that are encoded together; 0: one file at a time
    workers: int = 0  # threads that read ahead; 0: each batch is read when it is needed

    @property
    def samples_ahead(self) -> int:
        """How many samples are read ahead: a batch for each thread, and two that are ready."""
        return min(MAX_AHEAD, (self.workers + 2) * max(self.batch_samples, MIN_AHEAD))


@dataclass
class Batch:
    """Recordings to encode together."""

    block: Sequence[int]  # rows among which the batch was planned
    rows: list[int]
    wavs: dict[int, Tensor] = field(default_factory=dict)  # row -> (T,) float32
    # of the same rows, before they were read
    stamps: dict[int, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # path -> reason

    @contextlib.contextmanager
    def within_memory(self) -> Iterator[None]:
        """Encodes the batch inside; raises ValueError with its length if a GPU has too little memory."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            seconds = sum(map(len, self.wavs.values())) / SAMPLE_RATE
            raise ValueError(
                f"{seconds:.0f} s of speech in {len(self.wavs)} files do not fit into the memory of the GPU "
                "at once: give a smaller --batch-seconds (0: one file at a time); the same command continues"
            ) from error


def read_batches(
    manifest: Manifest,
    blocks: Iterable[Sequence[int]],
    min_samples: int,
    reading: Reading,
    stamp: Callable[[int], bytes] = lambda row: b"",
) -> Generator[Batch]:
    """The batches of `plan_batches` of each block of rows, read ahead by threads: most of the reading is
    done by libraries that let other threads run. `stamp` is called for each row before it is read."""

    def read(batch: Batch) -> None:
        for row in batch.rows:
            try:
                mark = stamp(row)
                wav = read_speech(manifest.path(row), min_samples)
                check_samples(len(wav), int(lengths[row]))
                batch.wavs[row], batch.stamps[row] = wav, mark
            except (FileNotFoundError, ValueError) as error:
                batch.failed[manifest.paths[row]] = str(error)

    lengths = manifest.num_samples
    batches = (
        Batch(block, rows)
        for block in blocks
        for rows in plan_batches(lengths, block, reading.batch_samples)
    )
    size = lambda batch: int(sum(lengths[row] for row in batch.rows))  # noqa: E731
    for batch, _ in read_ahead(read, batches, reading.workers, size, reading.samples_ahead):
        yield batch


def _encode(
    encoder: ContentEncoder | VqvaeUnits,
    rows: Sequence[int],
    batches: Iterable[Batch],
    outcome: RowsOutcome,
) -> tuple[dict[int, str], dict[int, bytes]]:
    """A line for each row, empty where it failed, and the stamps of the rows that did not fail."""
    units: dict[int, np.ndarray] = {}
    stamps: dict[int, bytes] = {}
    for batch in batches:
        outcome.failed |= batch.failed
        if batch.wavs:
            with batch.within_memory():
                encoded = encoder.encode_batch(list(batch.wavs.values()))
            units |= zip(batch.wavs, encoded, strict=True)
            stamps |= batch.stamps
    outcome.written += len(units)
    return {row: format_integers(units[row]) if row in units else "" for row in rows}, stamps


def quantize_split(
    manifest: Manifest,
    target: Path,
    encoder: ContentEncoder | VqvaeUnits,
    shard: Shard,
    reading: Reading,
) -> RowsOutcome:
    """Writes `{split}.units`, or this shard's part of it, and `units.json` beside it. Rows that fail stay
    empty in the part and are tried again by the next run."""
    record, settings = Record(target.parent), encoder.description
    part = LinesPart(record, target.name, manifest, shard, settings, {"units.json": settings})
    rows = part.rows
    if (outcome := part.finished()) is not None:
        return outcome
    outcome = RowsOutcome(rows=len(rows))
    read = functools.partial(
        read_batches, manifest, min_samples=encoder.min_samples, stamp=part.stamp
    )
    with part, progress(None, len(rows), f"quantize {target.stem}") as bar:
        done = part.keep_lines(BLOCK_ROWS)
        again = [row for row in rows[:done] if not part.is_done(row)]
        outcome.reused = done - len(again)
        skip(bar, outcome.reused)
        if done:
            logger.info("%s: %d of %d rows are reused", target.name, outcome.reused, len(rows))
        if again:  # they failed before, or their recordings have changed
            batches = read([again], reading=Reading(0, reading.workers))
            part.replace(*_encode(encoder, again, batches, outcome))
            bar.update(len(again))
        starts = range(done, len(rows), BLOCK_ROWS)
        blocks = (rows[start : start + BLOCK_ROWS] for start in starts)
        with contextlib.closing(read(blocks, reading=reading)) as ahead:
            for block, batches in itertools.groupby(ahead, key=lambda batch: batch.block):
                part.append(*_encode(encoder, block, batches, outcome))
                bar.update(len(block))
        outcome.joined = part.close(outcome.failed)
    return outcome


def foreign_units(data: Path) -> list[str]:
    """The `.units` files of a data folder that another encoder made than the one in `units.json`."""
    path, record = data / "units.json", Record(data)
    if not path.is_file():
        return []
    settings = record.key(read_json(path))
    names = sorted(file.name for file in data.glob("*.units"))
    made_by = {name: [facts.get("settings") for facts in record.facts(name)] for name in names}
    return [name for name, keys in made_by.items() if keys and settings not in keys]
