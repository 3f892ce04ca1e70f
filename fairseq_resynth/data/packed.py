"""Readers of a packed split, `{split}.pack/`, which `resynth pack` writes; all arrays are memory-mapped.

    train.pack/index.json          source, and length and hash of each file; written last
    train.pack/audio-00000.npy     (samples,) int16 of consecutive rows, about 1 GiB per shard
    train.pack/units.npy           (units,) integers of all rows; units_lengths.npy has the number of each row
    train.pack/f0.npy              the same for the pitch codes

The manifest has the length of each row, so the position of a crop is computed and only its bytes are read.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import (
    file_hash,
    map_array,
    read_object,
    reading,
    require_exists,
)
from fairseq_resynth.data.storage.messages import shown


def pack_folder(data: str | Path, split: str) -> Path:
    """The folder of a packed split."""
    return Path(data) / f"{split}.pack"


def has_stream(data: str | Path, split: str, name: str) -> bool:
    """Whether a split has `{split}.{name}`, as text or packed."""
    path = Path(data) / f"{split}.{name}"
    return path.is_file() or (pack_folder(data, split) / f"{name}.npy").is_file()


class MappedArray:
    """A memory-mapped array that is pickled as its path; slices of it are arrays."""

    def __init__(self, path: Path, hint: str = ""):
        self._path = path
        self.array = map_array(path, hint)

    def __getitem__(self, span: slice) -> np.ndarray:
        return self.array[span]

    def __reduce__(self):
        return MappedArray, (self._path,)


class FlatRows(Sequence[np.ndarray]):
    """Rows of numbers in one flat array, shared between data loader workers: `values`, (n,) row after row,
    which are read as `dtype`, and `lengths`, (rows,) int64."""

    dtype: type = np.int64

    def __init__(self, values: Any, lengths: np.ndarray):
        self.values, self.lengths = values, np.asarray(lengths, dtype=np.int64)
        self._ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]  # no slices of rows
        return self.slice(row, 0, int(self.lengths[row]))

    def slice(self, row: int, start: int, length: int) -> np.ndarray:
        """The numbers of a row from `start` on, (length,); fewer where the row ends."""
        end = int(self._ends[row])
        first = end - int(self.lengths[row]) + start
        return np.array(self.values[first : min(first + length, end)], dtype=self.dtype)


_FILE = {"file": str, "bytes": int, "hash": str}  # an entry of the index
_AUDIO = {**_FILE, "rows": [int]}  # the first row, and the one after the last


class PackIndex:
    """The index of a packed split: `content`, and the `command` that makes the split again, as a sentence.
    Raises FileNotFoundError if packing was interrupted."""

    def __init__(self, folder: Path):
        remake = f"run `resynth pack DATA --outdir {folder.parent}` again."
        self.folder = folder
        path, hint = folder / "index.json", f"Packing is not finished: {remake}"
        self.content = read_object(
            path, hint, source=str, rows=str, audio=[_AUDIO], streams={str: _FILE}
        )
        source = self.content["source"]
        self.command = f"Run `resynth pack {shown(source, 3000)} --outdir {folder.parent}`."
        with reading(path, "the index of a packed split", self.command):
            for entry in (*self.content["audio"], *self.content["streams"].values()):
                if entry["file"] != Path(entry["file"]).name:
                    raise ValueError(f"{entry['file']!r} is no name of a file")
            bounds = [tuple(entry["rows"]) for entry in self.content["audio"]]
            if [0, *(stop for _, stop in bounds)] != [*(start for start, _ in bounds), self.rows]:
                raise ValueError(f"its audio has the rows {bounds}, each after the one before")

    @property
    def rows(self) -> int:
        """The number of rows in the audio."""
        return max((entry["rows"][1] for entry in self.content["audio"]), default=0)

    def map(self, entry: dict[str, Any]) -> MappedArray:
        """Maps one file of the split. Raises FileNotFoundError if it does not exist, and ValueError if its
        length in bytes is not the one in the index."""
        path, expected = self.folder / entry["file"], f"expected {entry['bytes']}"
        require_exists(path, f", {expected} bytes. {self.command}")
        if (size := path.stat().st_size) != entry["bytes"]:
            raise ValueError(f"{path} has {size} bytes, {expected}. {self.command}")
        return MappedArray(path)


def packed_integers(path: Path) -> tuple[MappedArray, np.ndarray, int] | None:
    """The packed integers of `{split}.units` or `{split}.f0`, or None if they are not packed. They are
    (values, lengths (rows,) int64, the largest value). Raises as `PackIndex.map` does, and ValueError if the
    text file exists too, so that one of both is outdated."""
    folder, name = pack_folder(path.parent, path.stem), path.suffix[1:]
    if not (folder / f"{name}.npy").is_file():
        return None
    index = PackIndex(folder)
    if path.is_file():
        raise ValueError(
            f"{path} and the packed {folder / name}.npy both exist, expected one of them. Delete the text "
            f"file, or write it to the folder that was packed. {index.command}"
        )
    with reading(folder / "index.json", "the index of a packed split", index.command):
        streams = index.content["streams"]
        largest = int(streams[name]["largest"])
        values, counts = index.map(streams[name]), index.map(streams[f"{name}_lengths"])
        lengths = np.array(counts.array)
        sound = values.array.ndim == lengths.ndim == 1 and lengths.min(initial=0) >= 0
        if not sound or lengths.sum() != len(values.array) or values.array.dtype.kind not in "iu":
            raise ValueError(f"{name}.npy and {name}_lengths.npy do not belong together")
    return values, lengths, largest


@lru_cache(200)  # each has a file descriptor, of which most systems allow 1024 per process
def _map_shard(index: PackIndex, number: int) -> MappedArray:
    return index.map(index.content["audio"][number])


class AudioFiles:
    """Recordings as files."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """(num_samples,) float32 of a row from `start` on, fewer at its end; raises as `read_audio`."""
        return read_audio(self.manifest.path(row), start, num_samples)


class PackedAudio:
    """Recordings in the shards of `{split}.pack`. Raises FileNotFoundError if packing was interrupted or a
    shard is missing, and ValueError if other rows than the manifest's were packed or a shard is truncated."""

    def __init__(self, folder: Path, manifest: Manifest):
        self._index = PackIndex(folder)
        if (digest := manifest.rows_hash()) != (packed := self._index.content["rows"]):
            raise ValueError(
                f"{folder / 'index.json'} was packed from rows with the hash {shown(packed, 40)}, "
                f"{manifest.source} has {digest}. {self._index.command}"
            )
        self._shards = self._index.content["audio"]
        self._last_rows = np.array([shard["rows"][1] for shard in self._shards])
        self._starts = np.concatenate([[0], np.cumsum(manifest.num_samples)])
        if self._index.rows != len(manifest):
            raise ValueError(
                f"{folder / 'index.json'} has {self._index.rows} rows of audio, {manifest.source} "
                f"{len(manifest)}. {self._index.command}"
            )
        for number, shard in enumerate(self._shards):  # report damage now, not hours later
            first, end = self._starts[shard["rows"]]
            found = _map_shard(self._index, number).array
            if found.shape != (end - first,) or found.dtype != np.int16:
                raise ValueError(
                    f"{folder / shard['file']} holds {found.shape} {found.dtype}, expected "
                    f"({end - first},) int16. {self._index.command}"
                )

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """(num_samples,) float32 of a row, bit-identical to the file's."""
        number = int(np.searchsorted(self._last_rows, row, side="right"))
        shard = _map_shard(self._index, number)
        origin = self._starts[self._shards[number]["rows"][0]]
        first, end = self._starts[row] - origin, self._starts[row + 1] - origin
        samples = shard[first + start : min(first + start + num_samples, end)]
        return samples * np.float32(1 / 32768)


def open_audio(data: str | Path, split: str, manifest: Manifest) -> AudioFiles | PackedAudio:
    """The recordings of a split; raises as `PackedAudio` does if it is packed."""
    folder = pack_folder(data, split)
    return PackedAudio(folder, manifest) if folder.is_dir() else AudioFiles(manifest)


def verify_pack(data: str | Path, split: str) -> int:
    """Checks the hash of every file of a packed split, and returns the number of files. Raises
    FileNotFoundError if one does not exist, and ValueError if its length or hash is not the index's."""
    index = PackIndex(pack_folder(data, split))
    entries = [*index.content["audio"], *index.content["streams"].values()]
    for entry in entries:
        index.map(entry)
        path = index.folder / entry["file"]
        if (found := file_hash(path)) != entry["hash"]:
            raise ValueError(
                f"{path} has the hash {found}, expected {shown(entry['hash'], 40)}. Delete it, then: "
                f"{index.command}"
            )
    return len(entries)
