"""`{split}.units` from a manifest: streamed, resumable, in shards; failed rows are named, never skipped."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import atomic_path, read_json
from fairseq_resynth.data.storage.shards import (
    Shard,
    close_part,
    join_parts,
    open_part,
    rows_hash,
    whole_lines,
)
from fairseq_resynth.data.units import format_integers
from fairseq_resynth.encoders.frames import plan_batches, read_speech

logger = logging.getLogger(__name__)
# Rows that are batched among themselves and written at once. An interrupted run repeats less than one
# block, and since its batches are the same again, so are its bytes.
BLOCK_ROWS = 64


class UnitEncoder(Protocol):
    """What quantisation needs of `interop.content_encoder.ContentEncoder`."""

    description: dict[str, Any]
    min_samples: int

    def encode_batch(self, wavs: Sequence[Tensor]) -> list[np.ndarray]:
        """Waveforms (T,) to units (U,)."""


@dataclass
class Outcome:
    """What became of a split.

    Attributes:
        rows: rows of this shard.
        reused: of them, rows that an earlier run had left.
        failed: path and reason of each failed row; with any, the split's file is not written.
        joined: whether `{split}.units` is complete, rather than waiting for other shards.
    """

    rows: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    joined: bool = False


def _keep_lines(part: Path, lines: int) -> None:
    """Cuts a part after its first `lines` lines."""
    with part.open("r+b") as stream:
        for _ in range(lines):
            stream.readline()
        stream.truncate(stream.tell())


def _encode_rows(
    manifest: Manifest, rows: Sequence[int], encoder: UnitEncoder, batch_samples: int
) -> tuple[dict[int, str], dict[str, str]]:
    """Returns a line for each row, empty where it failed; and by path why it failed."""
    lines, failed = dict.fromkeys(rows, ""), {}
    for batch in plan_batches(manifest.num_samples, rows, batch_samples):
        wavs = {}
        for row in batch:
            try:
                wavs[row] = read_speech(manifest.path(row), encoder.min_samples)
            except (FileNotFoundError, ValueError) as error:
                failed[manifest.paths[row]] = str(error)
        if wavs:
            units = encoder.encode_batch(list(wavs.values()))
            lines.update({row: format_integers(u) for row, u in zip(wavs, units, strict=True)})
    return lines, failed


def _empty_rows(part: Path, rows: Sequence[int]) -> list[int]:
    with part.open("rb") as stream:
        return [row for row, line in zip(rows, stream, strict=False) if not line.strip()]


def _fill_rows(part: Path, rows: Sequence[int], lines: dict[int, str]) -> None:
    """Replaces the lines of some rows."""
    with atomic_path(part) as temporary, part.open() as old, temporary.open("w") as new:
        for row, line in zip(rows, old, strict=True):
            new.write(f"{lines[row]}\n" if row in lines else line)


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
) -> Outcome:
    """Writes `{split}.units`, or this shard's part of it, and `units.json` beside it.

    Args:
        manifest: of the split.
        target: the `.units` file.
        encoder: speech to units.
        shard: which rows.
        batch_samples: padded samples encoded together; 0: one file at a time.
        progress: called with the number of rows done since the last call.

    Returns:
        What became of it. Rows that failed stay empty in the part and are tried again by the next run.
    """
    rows, digest = shard.rows(len(manifest)), rows_hash(manifest)
    if _is_finished(target, encoder.description, digest):
        progress(len(rows))
        return Outcome(len(rows), len(rows), joined=True)
    key = {"rows": digest, **encoder.description}
    part = open_part(target, shard, key)
    found = whole_lines(part)
    done = len(rows) if found >= len(rows) else found // BLOCK_ROWS * BLOCK_ROWS
    _keep_lines(part, done)
    outcome = Outcome(rows=len(rows), reused=done)
    if done:
        logger.info("%s: %d of %d rows were there already", target.name, done, len(rows))
        progress(done)
        _retry(part, manifest, rows[:done], encoder, outcome)
    for block in _blocks(rows, done):
        lines, failed = _encode_rows(manifest, block, encoder, batch_samples)
        with part.open("a") as stream:
            stream.write("".join(f"{lines[row]}\n" for row in block))
        outcome.failed.update(failed)
        progress(len(block))
    if not outcome.failed:
        close_part(target, shard, key, {"units.json": _units_json(target, encoder, digest)})
        outcome.joined = join_parts(target, shard.count, key)
    return outcome


def _finished_rows(target: Path, description: dict[str, Any]) -> dict[str, str]:
    """Returns by split the hash of the rows that have units of this encoder."""
    path = target.with_name("units.json")
    found = read_json(path) if path.is_file() else {}
    same = all(found.get(name) == value for name, value in description.items())
    return found.get("rows", {}) if same else {}


def _is_finished(target: Path, description: dict[str, Any], digest: str) -> bool:
    return target.is_file() and _finished_rows(target, description).get(target.stem) == digest


def _units_json(target: Path, encoder: UnitEncoder, digest: str) -> dict[str, Any]:
    rows = _finished_rows(target, encoder.description)
    return {**encoder.description, "rows": {**rows, target.stem: digest}}


def foreign_units(data: Path) -> list[str]:
    """Returns the `.units` files of a directory that `units.json` does not speak of."""
    path = data / "units.json"
    known = read_json(path).get("rows") if path.is_file() else None
    if known is None:
        return []
    return sorted(file.name for file in data.glob("*.units") if file.stem not in known)


def _retry(
    part: Path, manifest: Manifest, rows: range, encoder: UnitEncoder, outcome: Outcome
) -> None:
    empty = _empty_rows(part, rows)
    if not empty:
        return
    lines, failed = _encode_rows(manifest, empty, encoder, 0)
    _fill_rows(part, rows, lines)
    outcome.reused -= len(empty)
    outcome.failed.update(failed)
