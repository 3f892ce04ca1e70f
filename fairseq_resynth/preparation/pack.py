"""Writing `{split}.pack/`: what `resynth pack` does. `data.packed` describes the files in it."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import TOKENS
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest, check_samples, read_manifest
from fairseq_resynth.data.packed import pack_folder
from fairseq_resynth.data.storage.files import array_header, atomic_path, file_hash, write_json
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.workers import parallel_map, progress
from fairseq_resynth.data.units import IntegerRows, read_integer_rows

# Small files, which are copied as they are.
_COPIED = ("speaker", *TOKENS, "speaker_vectors.npy", "speaker_vectors.json")
_DESCRIPTIONS = ("units.json", "f0_codes.json", "speakers.json", "speaker_vectors.json")
_STREAMS = {"units": "resynth quantize", "f0": "resynth quantize-f0"}  # and what makes each


@dataclass
class PackOutcome(Outcome):
    """What a run did with a split's audio files, each of which holds the recordings of many rows."""

    joined: bool = False  # complete, rather than waiting for other shares or for failed rows
    megabytes: float = 0.0  # size of all its files, in units of 2**20 bytes


@dataclass(frozen=True)
class _Plan:
    """One audio file: its name in the packed split, and the recordings of the rows from `first` on."""

    file: Path
    first: int
    paths: Sequence[Path]
    samples: Sequence[int]

    def key(self, record: Record) -> str:
        """What makes the file. A recording that cannot be read is named when it is packed."""
        contents = []
        for path in self.paths:
            try:
                contents.append(record.content(path))
            except OSError as error:
                contents.append(str(error))
        return record.key(self.first, self.samples, contents)


def _plans(manifest: Manifest, folder: Path, samples_per_file: int) -> list[_Plan]:
    """Audio files of at most so many samples, but of at least one row."""
    ends, plans, first = np.cumsum(manifest.num_samples), [], 0
    while first < len(ends):
        most = samples_per_file + (ends[first - 1] if first else 0)
        last = max(int(np.searchsorted(ends, most, side="right")), first + 1)
        file = folder / f"audio-{len(plans):05d}.npy"
        paths = [manifest.path(row) for row in range(first, last)]
        plans.append(_Plan(file, first, paths, manifest.num_samples[first:last].tolist()))
        first = last
    return plans


def _samples_16_bit(path: Path, expected: int) -> np.ndarray:
    """(T,) int16, of which `read_audio` gives the exact float32; ValueError if it is not such a file."""
    wav = read_audio(path)
    check_samples(len(wav), expected)
    scaled = wav * np.float32(32768)
    samples = np.clip(np.rint(scaled), -32768, 32767).astype("<i2")
    if not np.array_equal(samples, scaled):
        raise ValueError("found more than 16 bits per sample; run `resynth preprocess`")
    return samples


def _write_shard(job: tuple[_Plan, str]) -> dict[str, str]:
    """Writes one audio file, or nothing if rows fail; returns their reasons by path."""
    plan, failed = job[0], {}
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
    return failed


class _RowsFailedError(Exception):
    """Leaves an audio file unwritten."""


def _entry(file: Path) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "hash": file_hash(file)}


def pack_split(
    data: str | Path,
    split: str,
    outdir: str | Path,
    shard: Shard | None = None,
    workers: int = 1,
    samples_per_file: int = 1 << 29,
) -> PackOutcome:
    """Packs a split, or this share of its audio files, and completes it once all audio files exist.
    `samples_per_file` is the most that an audio file holds, unless its only row is longer. Raises
    FileNotFoundError or ValueError if the manifest or a stream is missing or malformed."""
    manifest = read_manifest(Path(data) / f"{split}.tsv")
    streams = {  # read first: a malformed one is reported before hours of packing
        name: read_integer_rows(source, len(manifest), command)
        for name, command in _STREAMS.items()
        if (source := Path(data) / f"{split}.{name}").is_file()
    }
    folder = pack_folder(outdir, split)
    folder.mkdir(parents=True, exist_ok=True)
    plans = _plans(manifest, folder, samples_per_file)
    share, outcome = (shard or Shard()).rows(len(plans)), PackOutcome()
    with Record(folder) as record:
        keyed = [(plans[number], plans[number].key(record)) for number in share]
        todo = [(plan, key) for plan, key in keyed if record.find(plan.file.name, key) is None]
        outcome.reused = len(share) - len(todo)
        results = parallel_map(_write_shard, todo, workers)
        for (plan, key), failed in progress(results, len(share), f"pack {split}", outcome.reused):
            outcome.failed |= failed
            if not failed:
                rows = [plan.first, plan.first + len(plan.paths)]
                record.add(plan.file.name, key, {**_entry(plan.file), "rows": rows})
                outcome.written += 1
    with Record(folder) as record:  # with what other processes have made meanwhile
        if all(record.knows(plan.file.name) for plan in plans):
            entries = [record.find(plan.file.name, plan.key(record)) for plan in plans]
            outcome.joined = None not in entries
    if outcome.joined:
        _complete(Path(data), manifest, folder, entries, streams)
    sizes = [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    outcome.megabytes = sum(sizes) / 2**20
    return outcome


def _complete(
    data: Path,
    manifest: Manifest,
    folder: Path,
    audio: list[dict[str, Any]],
    rows: dict[str, IntegerRows],
) -> None:
    """Packs the streams, copies what is small, and writes the index last."""
    split, outdir = manifest.source.stem, folder.parent
    streams: dict[str, Any] = {}
    for name, found in rows.items():
        for array, values in ((name, found.values), (f"{name}_lengths", found.lengths)):
            with atomic_path(folder / f"{array}.npy") as temporary:
                np.save(temporary, values, allow_pickle=False)
            streams[array] = _entry(folder / f"{array}.npy")
        streams[name]["largest"] = found.maximum
    kept = {entry["file"] for entry in (*audio, *streams.values())}
    for file in folder.iterdir():  # of an earlier run with other rows or sizes
        if file.name not in kept and file.is_file() and not file.name.startswith("."):
            file.unlink()
    _, _, body = manifest.source.read_bytes().partition(b"\n")
    with atomic_path(outdir / f"{split}.tsv") as temporary:
        temporary.write_bytes(b"%b\n%b" % (str(manifest.root.resolve()).encode(), body))
    names = [*(f"{split}.{suffix}" for suffix in _COPIED), *_DESCRIPTIONS]
    for name in (*names, f"f0/{split}.npy", f"f0/{split}.json"):
        if (data / name).is_file():
            with atomic_path(outdir / name) as temporary:
                shutil.copyfile(data / name, temporary)
    index = {"source": str(data), "rows": manifest.rows_hash(), "audio": audio, "streams": streams}
    write_json(folder / "index.json", index)
