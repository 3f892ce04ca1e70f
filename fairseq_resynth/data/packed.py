"""Reading what `resynth pack` wrote: `{split}.pack/`, memory-mapped.

    train.pack/index.json          what it was made from; each file's length and hash; written last
    train.pack/audio-00000.npy     (samples,) int16 of consecutive rows, 1 GiB a shard as a rule
    train.pack/units.npy           (units,) integers of all rows, units_lengths.npy how many each row has
    train.pack/f0.npy              the same of the pitch codes

The manifest beside it says how long each row is, so a crop is found by arithmetic and reads its own bytes.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import file_hash, read_json
from fairseq_resynth.data.storage.shards import rows_hash

PACKED_STREAMS = ("units", "f0")
_OPEN_SHARDS = 200  # each keeps a file descriptor; systems allow a process 1024 as a rule


def pack_folder(data: str | Path, split: str) -> Path:
    """Returns where a packed split lies."""
    return Path(data) / f"{split}.pack"


def has_stream(data: str | Path, split: str, name: str) -> bool:
    """Tells whether a split has `{split}.{name}`, as text or packed."""
    path = Path(data) / f"{split}.{name}"
    return path.is_file() or (pack_folder(data, split) / f"{name}.npy").is_file()


def read_index(folder: Path) -> dict[str, Any]:
    """Reads what a packed split says of itself.

    Raises:
        FileNotFoundError: packing was interrupted.
    """
    return read_json(
        folder / "index.json",
        f"Packing is not finished: run `resynth pack DATA --outdir {folder.parent}` again.",
    )


def pack_command(folder: Path, index: dict[str, Any]) -> str:
    """Returns the command that makes a packed split again."""
    return f"Run `resynth pack {index.get('source', 'DATA')} --outdir {folder.parent}`."


def map_array(folder: Path, entry: dict[str, Any], index: dict[str, Any]) -> np.ndarray:
    """Maps one file of a packed split, whose length in bytes must be what the index says.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: cut short, or longer.
    """
    path = folder / entry["file"]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, expected {entry['bytes']} bytes. {pack_command(folder, index)}"
        )
    if (size := path.stat().st_size) != entry["bytes"]:
        raise ValueError(
            f"{path} has {size} bytes, expected {entry['bytes']}. {pack_command(folder, index)}"
        )
    return np.load(path, mmap_mode="r", allow_pickle=False)


class MappedArray:
    """A memory-mapped flat array that pickles as its path; slices of it are arrays."""

    def __init__(self, folder: Path, entry: dict[str, Any], index: dict[str, Any]):
        self._arguments = (folder, entry, index)
        self._array = map_array(*self._arguments)

    def __getitem__(self, span: slice) -> np.ndarray:
        return self._array[span]

    def __reduce__(self):
        return MappedArray, self._arguments


def packed_integers(path: Path) -> tuple[MappedArray, np.ndarray, int] | None:
    """Returns the packed integers of `{split}.units` or `{split}.f0`; None: not packed.

    Returns:
        (values, lengths (rows,) int64, the largest).

    Raises:
        FileNotFoundError, ValueError: see `map_array`; or there is text beside them, so that one is stale.
    """
    folder, name = pack_folder(path.parent, path.stem), path.suffix[1:]
    if not (folder / f"{name}.npy").is_file():
        return None
    index = read_index(folder)
    if path.is_file():
        raise ValueError(
            f"{path} lies beside the packed {folder / name}.npy, expected one of them. Delete the text, or "
            f"make it in the folder that was packed. {pack_command(folder, index)}"
        )
    values, lengths = (
        MappedArray(folder, index["streams"][key], index) for key in (name, f"{name}_lengths")
    )
    return values, np.array(lengths[:]), index["streams"][name]["largest"]


class AudioRows(Protocol):
    """The recordings of a split."""

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """Returns (num_samples,) float32 of a row, shorter where it ends."""


class AudioFiles:
    """Recordings as files."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """See `AudioRows.read`; raises what `read_audio` does."""
        return read_audio(self.manifest.path(row), start, num_samples)


class PackedAudio:
    """Recordings in shards.

    Args:
        folder: `{split}.pack`.
        manifest: of the split, whose rows must have been packed.

    Raises:
        FileNotFoundError: not finished, or a shard is missing.
        ValueError: packed from other rows, or a shard is cut short.
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
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()
        for number in range(len(self._shards)):  # what is missing is said now, not hours later
            self._map(number)

    def _map(self, number: int) -> np.ndarray:
        if number not in self._open:
            self._open[number] = map_array(self._folder, self._shards[number], self._index)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        return self._open[number]

    def read(self, row: int, start: int, num_samples: int) -> np.ndarray:
        """See `AudioRows.read`; the same bits as of the file."""
        number = int(np.searchsorted(self._last_rows, row, side="right"))
        shard = self._map(number)
        origin = self._starts[self._shards[number]["rows"][0]]
        first, end = self._starts[row] - origin, self._starts[row + 1] - origin
        samples = shard[first + start : min(first + start + num_samples, end)]
        return samples * np.float32(1 / 32768)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def open_audio(data: str | Path, split: str, manifest: Manifest) -> AudioRows:
    """Returns a split's recordings, packed ones if it is packed.

    Raises:
        FileNotFoundError, ValueError: see `PackedAudio`.
    """
    folder = pack_folder(data, split)
    return PackedAudio(folder, manifest) if folder.is_dir() else AudioFiles(manifest)


def verify_pack(data: str | Path, split: str) -> int:
    """Hashes every file of a packed split; returns how many.

    Raises:
        FileNotFoundError, ValueError: a file is missing, of another length, or has another hash.
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
