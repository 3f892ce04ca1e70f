"""Many files as one archive, `.rsyna`: one header and checksum, each member found by its name."""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from fairseq_resynth.codec.format.bitstream import CHECKSUM_BYTES, IDENTITY_BYTES
from fairseq_resynth.codec.format.errors import CodecError
from fairseq_resynth.data.storage.files import atomic_path

MAGIC = b"RSYA1"
_HEAD = struct.Struct("<5s16s8sII")  # magic, identity, checksum, index bytes, its bytes unpacked
LARGEST_INDEX = 1 << 26


def write_archive(path: str | Path, identity: bytes, members: Iterable[tuple[str, bytes]]) -> int:
    """Writes an archive of (name, `.rsyn` file) atomically and returns its size in bytes.

    `identity`, 16 bytes, names the model of every member, and one checksum covers all, so that members carry
    neither. Raises ValueError if a name is empty, comes twice, or contains a line break or a tab.
    """
    bodies, lines, names = [], [], set()
    for name, data in sorted(members):
        if name in names or any(mark in name for mark in "\t\n\r") or not name:
            raise ValueError(
                f"the archive cannot hold the name {name!r}: expected names that differ, without tabs"
            )
        names.add(name)
        bodies.append(data[:1] + data[1 + IDENTITY_BYTES : -CHECKSUM_BYTES])
        lines.append(f"{name}\t{len(bodies[-1])}")
    index = "\n".join(lines).encode()
    packed = zlib.compress(index, 9)
    rest = packed + b"".join(bodies)
    sizes = len(packed), len(index)
    head = _HEAD.pack(MAGIC, identity, _digest(identity, *sizes, rest), *sizes)
    with atomic_path(path) as temporary:
        return temporary.write_bytes(head + rest)


def _digest(identity: bytes, packed: int, unpacked: int, rest: bytes) -> bytes:
    sizes = struct.pack("<II", packed, unpacked)
    return hashlib.blake2b(identity + sizes + rest, digest_size=8).digest()


class Archive:
    """An archive, checked as a whole when it is opened; `identity` None takes that of any model.

    `identity` then names the model that the members need, and `names` are theirs, sorted. Raises CodecError
    if the file is damaged, or of another format or model.
    """

    def __init__(self, path: str | Path, identity: bytes | None = None):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        data = path.read_bytes()
        if len(data) < _HEAD.size or not data.startswith(MAGIC):
            raise CodecError(f"{path} is not an archive: it does not start with {MAGIC.decode()}")
        _, self.identity, digest, packed, unpacked = _HEAD.unpack_from(data)
        rest = data[_HEAD.size :]
        if _digest(self.identity, packed, unpacked, rest) != digest:
            raise CodecError(f"{path} is damaged: its checksum does not fit its content")
        if identity is not None and self.identity != identity:
            raise CodecError(
                f"{path} needs the model {self.identity.hex()[:8]}…, this one is {identity.hex()[:8]}…"
            )
        self._places = _read_index(path, rest[:packed], unpacked)
        self._bodies = rest[packed:]
        self.names = list(self._places)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return ((name, self.read(name)) for name in self.names)

    def read(self, name: str) -> bytes:
        """A member as a `.rsyn` file without checksum, for `read_bytes(…, checksum=False)`."""
        body = self._bodies[self._places[name]]
        return body[:1] + self.identity[:IDENTITY_BYTES] + body[1:]


def _read_index(path: Path, packed: bytes, size: int) -> dict[str, slice]:
    places, position = {}, 0
    try:
        if size > LARGEST_INDEX:  # a few bytes of zlib could claim gigabytes
            raise ValueError("the index is too large")
        index = zlib.decompressobj().decompress(packed, size + 1)
        for line in index.decode().split("\n") if index else []:
            name, length = line.split("\t")
            places[name] = slice(position, position + int(length))
            position += int(length)
    except (ValueError, zlib.error) as error:
        raise CodecError(f"{path} is damaged: {error}") from error
    return places
