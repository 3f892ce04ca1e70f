"""Writing `{split}.pack/`: what `resynth pack` does; see `data.pack` for what lies in it."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest, read_manifest
from fairseq_resynth.data.packed import PACKED_STREAMS, pack_folder
from fairseq_resynth.data.storage.files import (
    array_header,
    atomic_path,
    file_hash,
    read_json,
    write_json,
)
from fairseq_resynth.data.storage.shards import Shard, rows_hash
from fairseq_resynth.data.storage.workers import parallel_map, progress
from fairseq_resynth.data.units import read_integer_rows

# What lies beside the recordings and is small: copied as it is.
_COPIED = ("speaker", "style", "speaker_vectors.npy", "speaker_vectors.json")
_DESCRIPTIONS = ("units.json", "f0_codes.json", "speakers.json", "speaker_vectors.json")
_MADE_BY = {"units": "resynth quantize", "f0": "resynth quantize-f0"}


@dataclass
class PackOutcome:
    """What became of a split.

    Attributes:
        shards: audio shards of this share of the work.
        reused: of them, shards that an earlier run had left.
        failed: path and reason of each row that cannot be packed.
        joined: whether the split is complete, rather than waiting for other shares or for failed rows.
        megabytes: of all its files, of 2**20 bytes.
    """

    shards: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    joined: bool = False
    megabytes: float = 0.0


@dataclass(frozen=True)
class _Plan:
    """One audio shard: its file, the rows in it, and where they are read."""

    file: Path
    first: int
    paths: Sequence[Path]
    samples: Sequence[int]

    @property
    def entry_path(self) -> Path:
        """What the index will say of the shard, until the index is written and after."""
        return self.file.with_suffix(".json")

    @property
    def rows(self) -> list[int]:
        """First row and the one after the last."""
        return [self.first, self.first + len(self.paths)]


def _bounds(num_samples: np.ndarray, samples_a_shard: int) -> list[tuple[int, int]]:
    """Returns (first, last + 1) rows of shards of at most so many samples, of one row at least."""
    ends, bounds, first = np.cumsum(num_samples), [], 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + samples_a_shard, side="right"))
        bounds.append((first, max(last, first + 1)))
        first = bounds[-1][1]
    return bounds


def _samples_16_bit(path: Path, expected: int) -> np.ndarray:
    """Returns (T,) int16 of which `read_audio` is the exact float32.

    Raises:
        FileNotFoundError, ValueError: unreadable, of another length, or not of 16 bits.
    """
    wav = read_audio(path)
    if len(wav) != expected:
        raise ValueError(
            f"{path}: found {len(wav)} samples, the manifest says {expected}; run `resynth manifest` again"
        )
    scaled = wav * np.float32(32768)
    samples = np.clip(np.rint(scaled), -32768, 32767).astype("<i2")
    if not np.array_equal(samples, scaled):
        raise ValueError(f"{path}: found more than 16 bits a sample; run `resynth preprocess`")
    return samples


def _write_shard(plan: _Plan, key: dict[str, Any]) -> dict[str, str]:
    """Writes one shard and what the index says of it; returns reasons of failed rows by path."""
    failed: dict[str, str] = {}
    plan.entry_path.unlink(missing_ok=True)
    with contextlib.suppress(_RowsFailedError), atomic_path(plan.file) as temporary:
        with temporary.open("wb") as stream:
            stream.write(array_header((sum(plan.samples),), "<i2"))
            for path, expected in zip(plan.paths, plan.samples, strict=True):
                try:
                    stream.write(_samples_16_bit(path, expected).tobytes())
                except (FileNotFoundError, ValueError) as error:
                    failed[str(path)] = str(error)
        if failed:
            raise _RowsFailedError
    if not failed:
        write_json(plan.entry_path, {"key": key, "entry": {**_entry(plan.file), "rows": plan.rows}})
    return failed


class _RowsFailedError(Exception):
    """Leaves a shard unwritten."""


def _entry(file: Path) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "hash": file_hash(file)}


def _finished_entry(plan: _Plan, key: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what an earlier run wrote of a shard, if that is still it."""
    if not (plan.file.is_file() and plan.entry_path.is_file()):
        return None
    found = read_json(plan.entry_path)
    expected = {**found["entry"], "rows": plan.rows, "bytes": plan.file.stat().st_size}
    return expected if found == {"key": key, "entry": expected} else None


def pack_split(
    data: str | Path,
    split: str,
    outdir: str | Path,
    shard: Shard | None = None,
    workers: int = 1,
    samples_a_shard: int = 1 << 29,
) -> PackOutcome:
    """Packs a split, or this share of its audio shards, and completes it if all are there.

    Args:
        data: the data folder.
        split: `train`, `valid`, …
        outdir: the folder to write, another one.
        shard: which share.
        workers: processes, each at work on one audio shard.
        samples_a_shard: of an audio shard, two bytes each.

    Raises:
        FileNotFoundError, ValueError: no usable manifest or streams.
    """
    manifest = read_manifest(Path(data) / f"{split}.tsv")
    folder, key = pack_folder(outdir, split), {"rows": rows_hash(manifest)}
    folder.mkdir(parents=True, exist_ok=True)
    plans = [
        _Plan(
            folder / f"audio-{number:05d}.npy",
            first,
            [manifest.path(row) for row in range(first, last)],
            manifest.num_samples[first:last].tolist(),
        )
        for number, (first, last) in enumerate(_bounds(manifest.num_samples, samples_a_shard))
    ]
    share = [plans[number] for number in (shard or Shard()).rows(len(plans))]
    todo = [plan for plan in share if _finished_entry(plan, key) is None]
    outcome = PackOutcome(len(share), len(share) - len(todo))
    results = parallel_map(partial(_write_shard, key=key), todo, workers)
    for _, failed in progress(results, len(share), f"pack {split}", outcome.reused):
        outcome.failed.update(failed)
    entries = [_finished_entry(plan, key) for plan in plans]
    if None not in entries:
        _complete(Path(data), manifest, folder, {**key, "audio": entries})
        outcome.joined = True
    outcome.megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    return outcome


def _complete(data: Path, manifest: Manifest, folder: Path, made: dict[str, Any]) -> None:
    """Packs the streams, copies what is small, and writes the index last."""
    split, outdir = manifest.source.stem, folder.parent
    streams: dict[str, Any] = {}
    for name in PACKED_STREAMS:
        source = data / f"{split}.{name}"
        if source.is_file():
            streams |= _pack_integers(source, folder, name, len(manifest))
    kept = {entry["file"] for entry in (*made["audio"], *streams.values())}
    kept |= {str(Path(entry["file"]).with_suffix(".json")) for entry in made["audio"]}
    for file in folder.iterdir():  # of an earlier run with other rows or shards
        if file.name not in kept and not file.name.startswith("."):
            file.unlink()
    _, _, body = manifest.source.read_bytes().partition(b"\n")
    root = str(manifest.root.resolve()).encode()
    _write_bytes(outdir / f"{split}.tsv", b"%b\n%b" % (root, body))
    for name in (*(f"{split}.{suffix}" for suffix in _COPIED), *_DESCRIPTIONS):
        _copy(data / name, outdir / name)
    for suffix in (".npy", ".json"):
        _copy(data / "f0" / f"{split}{suffix}", outdir / "f0" / f"{split}{suffix}")
    index = {"source": str(data), **made, "streams": streams}
    write_json(folder / "index.json", index)


def _pack_integers(source: Path, folder: Path, name: str, rows: int) -> dict[str, Any]:
    """Packs `{split}.units` or `{split}.f0`; returns the entries of values and lengths."""
    found = read_integer_rows(source, rows, _MADE_BY[name])
    arrays = {name: found.values, f"{name}_lengths": found.lengths}
    for key, values in arrays.items():
        with atomic_path(folder / f"{key}.npy") as temporary:
            np.save(temporary, values, allow_pickle=False)
    entries = {key: _entry(folder / f"{key}.npy") for key in arrays}
    entries[name]["largest"] = found.maximum
    return entries


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
