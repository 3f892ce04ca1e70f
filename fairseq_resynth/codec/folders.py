"""Many files: whole folders, where those of the same source are reused and failures are named, and archives.

An archive, `.rsyna`, has one header and one checksum, and each member is found by its name.
"""

import hashlib
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.codec.format.bitstream import CHECKSUM_BYTES, IDENTITY_BYTES
from fairseq_resynth.codec.format.packets import frame_packets
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.data.storage.messages import first_names
from fairseq_resynth.data.storage.resume import Outcome, Record

SUFFIX, ARCHIVE_SUFFIX, PACKETS_SUFFIX = ".rsyn", ".rsyna", ".rsynp"
Member = tuple[str, bytes, bool]  # name, bytes, whether they have a checksum

MAGIC = b"RSYA1"
_HEAD = struct.Struct("<5s16s8sII")  # magic, identity, checksum, index bytes, its bytes unpacked
LARGEST_INDEX = 1 << 26


@dataclass
class CodecOutcome(Outcome):
    """What a run did."""

    bytes: int = 0  # size of the compressed files, reused ones included


def encode_all(
    codec: SpeechCodec,
    inputs: Mapping[str, Path],
    folder: Path,
    speaker: str | None = None,
    by_folder: bool = False,
    block: float | None = None,
    packets: float | None = None,
    progress: Callable[[], object] = lambda: None,
) -> CodecOutcome:
    """Encodes {name: path} into `folder`/name.rsyn; files of the same codec, settings and source are reused.
    `speaker` speaks in all of them; with `by_folder` the name of a file's folder is its speaker instead.
    `block` is the length in seconds for `SpeechCodec.encode_blocks`; None: encode each as a whole. `packets`
    is the length in seconds of packets, which name.rsynp then holds; None: no packets."""
    outcome, suffix = CodecOutcome(), SUFFIX if packets is None else PACKETS_SUFFIX
    settings = {"block": block} | ({} if packets is None else {"packets": packets})

    def write(path: Path, voice: str | None, temporary: Path) -> float:
        temporary.write_bytes(_encoded(codec, path, voice, block, packets))
        return 0.0

    with Record(folder) as record:
        for name, path in inputs.items():
            file, voice = f"{name}{suffix}", path.resolve().parent.name if by_folder else speaker
            parts = codec.identity, settings, voice, path
            record.make(outcome, file, parts, partial(write, path, voice), source=path)
            if str(path) not in outcome.failed:
                outcome.bytes += (folder / file).stat().st_size
            progress()
    return outcome


def _encoded(
    codec: SpeechCodec, path: Path, voice: str | None, block: float | None, packets: float | None
) -> bytes:
    if packets is not None and block:
        audio = [codec.resynthesizer.waveform(path)]
        return b"".join(frame_packets(codec.encode_packet_stream(audio, voice, packets, block)))
    if packets is not None:
        return b"".join(frame_packets(codec.encode_packets(path, voice, packets)))
    return codec.encode_blocks(path, voice, block) if block else codec.encode(path, voice)


def has_packets(data: bytes) -> bool:
    """Whether the bytes of a file begin as those of packets do; files of other kinds do not."""
    return data[:1] == b"\0"


def coded_members(codec: SpeechCodec, path: Path, name: str | None) -> Iterator[Member]:
    """Yields the members of a file, an archive or a folder; `name` is the only one wanted from an archive.
    Raises FileNotFoundError if there is no file, or no member of that name, ValueError for a `name` without
    an archive, and CodecError if an archive is damaged."""
    if name is not None and path.exists() and (path.is_dir() or path.suffix != ARCHIVE_SUFFIX):
        raise ValueError(
            f"--name chooses a member of an archive ({ARCHIVE_SUFFIX}), {path} is none"
        )
    if path.is_dir():
        suffixes = SUFFIX, PACKETS_SUFFIX
        files = sorted(file for suffix in suffixes for file in path.rglob(f"*{suffix}"))
        names = [file.relative_to(path).with_suffix("").as_posix() for file in files]
        if not files:
            raise FileNotFoundError(
                f"{path} has no *{SUFFIX} files. Make them with `resynth encode`."
            )
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{path} has {twice[0]} both as {' and as '.join(suffixes)}")
        for name, file in zip(names, files, strict=True):
            yield name, file.read_bytes(), True
    elif path.suffix == ARCHIVE_SUFFIX:
        archive = Archive(path, codec.identity)
        if name is not None and name not in archive.names:
            known = first_names(archive.names, 10)
            raise FileNotFoundError(f"{path} has no member {name!r}; it holds {known}")
        for member in archive.names if name is None else [name]:
            yield member, archive.read(member), False
    elif path.is_file():
        yield path.stem, path.read_bytes(), True
    else:
        raise FileNotFoundError(f"{path} does not exist")


def decode_all(
    codec: SpeechCodec,
    members: Sequence[Member],
    folder: Path,
    decode: Callable[[bytes, bool, str], np.ndarray],
    settings: Any = None,
    progress: Callable[[], object] = lambda: None,
) -> CodecOutcome:
    """Decodes the `coded_members` into WAV files; those of the same codec, settings and bytes are reused.
    `decode` gives (T,) float32 samples for bytes, whether they have a checksum, and a name; `settings`,
    JSON types, are what the samples depend on in addition."""
    outcome = CodecOutcome()

    def write(data: bytes, checksum: bool, name: str, temporary: Path) -> float:
        return write_speech(codec, decode(data, checksum, name), temporary)

    with Record(folder) as record:
        for name, data, checksum in members:
            parts = codec.identity, settings, data, checksum
            made = partial(write, data, checksum, name)
            record.make(outcome, f"{name}.wav", parts, made, source=name)
            outcome.bytes += len(data) if name not in outcome.failed else 0
            progress()
    return outcome


def write_speech(codec: SpeechCodec, wav: np.ndarray, path: Path) -> float:
    """Writes (T,) decoded samples as .wav or .flac; returns their seconds."""
    sample_rate = codec.resynthesizer.streams.sample_rate
    write_audio(path, wav, sample_rate)
    return len(wav) / sample_rate


def write_archive(path: str | Path, identity: bytes, members: Iterable[tuple[str, bytes]]) -> int:
    """Writes an archive of (name, `.rsyn` file) and returns its size in bytes. Its `identity`, 16 bytes, and
    checksum are those of all members, which carry neither. Raises ValueError if a name is empty, comes
    twice, or contains a line break or a tab."""
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
    """An archive, checked as a whole when it is opened; `identity` None takes that of any model. `identity`
    then names the model that the members need, and `names` are theirs, sorted. Raises CodecError if the file
    is damaged, or of another format or model."""

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
