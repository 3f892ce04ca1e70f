"""Readers of a packed split, `{split}.pack/`, which `resynth pack` writes; all arrays are memory-mapped.

    train.pack/index.json          source, and length and hash of each file; written last
    train.pack/audio-00000.npy     (samples,) int16 of consecutive rows, about 1 GiB per shard
    train.pack/units.npy           (units,) integers of all rows; units_lengths.npy has the number of each row
    train.pack/f0.npy              the same for the pitch codes

The manifest has the length of each row, so the position of a crop is computed and only its bytes are read.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import file_hash, read_json
from fairseq_resynth.data.storage.shards import rows_hash

_OPEN_SHARDS = 200  # each has a file descriptor, of which most systems allow 1024 per process


def pack_folder(data: str | Path, split: str) -> Path:
    """The folder of a packed split."""
    return Path(data) / f"{split}.pack"


def has_stream(data: str | Path, split: str, name: str) -> bool:
    """Whether a split has `{split}.{name}`, as text or packed."""
    path = Path(data) / f"{split}.{name}"
    return path.is_file() or (pack_folder(data, split) / f"{name}.npy").is_file()


def read_index(folder: Path) -> dict[str, Any]:
    """Reads the index of a packed split; raises FileNotFoundError if packing was interrupted."""
    return read_json(
        folder / "index.json",
        f"Packing is not finished: run `resynth pack DATA --outdir {folder.parent}` again.",
    )


def pack_command(folder: Path, index: dict[str, Any]) -> str:
    """The command that makes a packed split again, as a sentence."""
    return f"Run `resynth pack {index.get('source', 'DATA')} --outdir {folder.parent}`."


class MappedArray:
    """A memory-mapped array that is pickled as its path; slices of it are arrays."""

    def __init__(self, path: Path):
        self._path = path
        self.array = np.load(path, mmap_mode="r", allow_pickle=False)

    def __getitem__(self, span: slice) -> np.ndarray:
        return self.array[span]

    def __reduce__(self):
        return MappedArray, (self._path,)


def map_array(folder: Path, entry: dict[str, Any], index: dict[str, Any]) -> MappedArray:
    """Maps one file of a packed split. Raises FileNotFoundError if it does not exist, and ValueError if its
    length in bytes is not the one in the index."""
    path = folder / entry["file"]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, expected {entry['bytes']} bytes. {pack_command(folder, index)}"
        )
    if (size := path.stat().st_size) != entry["bytes"]:
        raise ValueError(
            f"{path} has {size} bytes, expected {entry['bytes']}. {pack_command(folder, index)}"
        )
    return MappedArray(path)


def packed_integers(path: Path) -> tuple[MappedArray, np.ndarray, int] | None:
    """The packed integers of `{split}.units` or `{split}.f0`, or None if they are not packed.

    They are (values, lengths (rows,) int64, the largest value). Raises as `map_array` does, and ValueError
    if the text file exists too, so that one of both is outdated.
    """
    folder, name = pack_folder(path.parent, path.stem), path.suffix[1:]
    if not (folder / f"{name}.npy").is_file():
        return None
    index = read_index(folder)
    if path.is_file():
        raise ValueError(
            f"{path} and the packed {folder / name}.npy both exist, expected one of them. Delete the text "
            f"file, or write it to the folder that was packed. {pack_command(folder, index)}"
        )
    entry = index["streams"][name]
    lengths = map_array(folder, index["streams"][f"{name}_lengths"], index)
    return map_array(folder, entry, index), np.array(lengths.array), entry["largest"]


class AudioFiles:
    """Recordings as files."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """(num_samples,) float32 of a row from `start` on, fewer at its end; raises as `read_audio`."""
        return read_audio(self.manifest.path(row), start, num_samples)


class PackedAudio:
    """Recordings in the shards of `{split}.pack`.

    Raises FileNotFoundError if packing was interrupted or a shard is missing, and ValueError if other rows
    than the manifest's were packed or a shard is truncated.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self._folder, self._index = folder, read_index(folder)
        if (digest := rows_hash(manifest)) != self._index["rows"]:
            raise ValueError(
                f"{folder / 'index.json'} was packed from rows with the hash {self._index['rows']}, "
                f"{manifest.source} has {digest}. {pack_command(folder, self._index)}"
            )
        self._shards = self._index["audio"]
        self._last_rows = np.array([shard["rows"][1] for shard in self._shards])
        self._starts = np.concatenate([[0], np.cumsum(manifest.num_samples)])
        self._open: OrderedDict[int, MappedArray] = OrderedDict()
        for number in range(len(self._shards)):  # report a missing shard now, not hours later
            self._map(number)

    def _map(self, number: int) -> MappedArray:
        if number not in self._open:
            self._open[number] = map_array(self._folder, self._shards[number], self._index)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        return self._open[number]

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """(num_samples,) float32 of a row, bit-identical to the file's."""
        number = int(np.searchsorted(self._last_rows, row, side="right"))
        shard = self._map(number)
        origin = self._starts[self._shards[number]["rows"][0]]
        first, end = self._starts[row] - origin, self._starts[row + 1] - origin
        samples = shard[first + start : min(first + start + num_samples, end)]
        return samples * np.float32(1 / 32768)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def open_audio(data: str | Path, split: str, manifest: Manifest) -> AudioFiles | PackedAudio:
    """The recordings of a split; raises as `PackedAudio` does if it is packed."""
    folder = pack_folder(data, split)
    return PackedAudio(folder, manifest) if folder.is_dir() else AudioFiles(manifest)


def verify_pack(data: str | Path, split: str) -> int:
    """Checks the hash of every file of a packed split, and returns the number of files.

    Raises FileNotFoundError if one does not exist, and ValueError if its length or hash is not the index's.
    """
    folder = pack_folder(data, split)
    index = read_index(folder)
    entries = [*index["audio"], *index["streams"].values()]
    for entry in entries:
        map_array(folder, entry, index)
        if (found := file_hash(folder / entry["file"])) != entry["hash"]:
            raise ValueError(
                f"{folder / entry['file']} has the hash {found}, expected {entry['hash']}. Delete it, then: "
                f"{pack_command(folder, index)}"
            )
    return len(entries)
