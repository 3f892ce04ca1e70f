"""Encoding and decoding of whole folders: files of the same source are reused, failures are named."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from soundfile import SoundFileError

from fairseq_resynth.codec.format.archive import Archive
from fairseq_resynth.codec.format.bitstream import IDENTITY_BYTES
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.preparation.preprocess import find_sources

SUFFIX, ARCHIVE_SUFFIX = ".rsyn", ".rsyna"


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        written, reused: Number of files.
        seconds: Length of the audio that was written.
        bytes: Size of the compressed files.
        failed: Reasons by name.
    """

    written: int = 0
    reused: int = 0
    seconds: float = 0.0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: Its path within the output folder, without suffix.
        path: The recording.
        speaker: Who speaks, if the model knows the voice.
    """

    name: str
    path: Path
    speaker: str | None


def audio_sources(path: Path, out: Path, speaker: str | None, by_folder: bool) -> list[Source]:
    """Lists the audio of a file or a folder.

    Args:
        path: File or folder.
        out: Where the output goes; within the folder, it is left out.
        speaker: Who speaks in all of it.
        by_folder: Takes the name of each file's folder as its speaker instead.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If two files differ only in their suffix.
    """
    if path.is_file():
        name = path.resolve().parent.name if by_folder else speaker
        return [Source(path.stem, path, name)]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist")
    sources = []
    for file in find_sources(path, out):
        name = (path / file).resolve().parent.name if by_folder else speaker
        sources.append(Source(file.with_suffix("").as_posix(), path / file, name))
    if len({source.name for source in sources}) != len(sources):
        raise ValueError(f"{path} holds files that differ only in their suffix: rename them")
    return sources


def encode_all(
    codec: SpeechCodec,
    sources: list[Source],
    target: Callable[[str], Path] | None,
    encode: Callable[[Source], bytes],
    progress: Callable[[], object] = lambda: None,
) -> tuple[Outcome, list[tuple[str, bytes]]]:
    """Encodes every source; one that fails is named and the rest goes on.

    Args:
        codec: Its earlier files are reused.
        sources: The recordings.
        target: Gives the path for a name; None writes nothing.
        encode: Gives the bytes of a source.
        progress: Called after each.

    Returns:
        What was done, and (name, bytes) of each file if nothing is written.
    """
    outcome, members = Outcome(), []
    for source in sources:
        path = None if target is None else target(source.name)
        try:
            if path is not None and _is_current(codec, path, source.path):
                outcome.reused += 1
                outcome.bytes += path.stat().st_size
                continue
            data = encode(source)
            if path is None:
                members.append((source.name, data))
            else:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
            outcome.written += 1
            outcome.bytes += len(data)
        except (ValueError, OSError) as error:
            outcome.failed[str(source.path)] = str(error)
        finally:
            progress()
    return outcome, members


def _is_current(codec: SpeechCodec, path: Path, source: Path) -> bool:
    if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
        return False
    with path.open("rb") as stream:
        return stream.read(1 + IDENTITY_BYTES)[1:] == codec.identity[:IDENTITY_BYTES]


def coded_members(
    codec: SpeechCodec, path: Path, name: str | None
) -> Iterator[tuple[str, bytes, bool]]:
    """Yields (name, bytes, whether they have a checksum) of a file, an archive or a folder.

    Args:
        codec: The codec that is to decode them.
        path: `.rsyn` file, `.rsyna` archive, or a folder of `.rsyn` files.
        name: The only member wanted from an archive; None: all.

    Raises:
        FileNotFoundError: If there is no file, or no member of that name.
        CodecError: If an archive is damaged.
    """
    if path.is_dir():
        files = sorted(path.rglob(f"*{SUFFIX}"))
        if not files:
            raise FileNotFoundError(
                f"{path} has no *{SUFFIX} files. Make them with `resynth encode`."
            )
        yield from (
            (f.relative_to(path).with_suffix("").as_posix(), f.read_bytes(), True) for f in files
        )
    elif path.suffix == ARCHIVE_SUFFIX:
        archive = Archive(path, codec.identity)
        if name is not None and name not in archive.names:
            known = ", ".join(archive.names[:10]) + (" …" if len(archive.names) > 10 else "")
            raise FileNotFoundError(f"{path} has no member {name!r}; it holds {known}")
        for member in archive.names if name is None else [name]:
            yield member, archive.read(member), False
    elif path.is_file():
        yield path.stem, path.read_bytes(), True
    else:
        raise FileNotFoundError(f"{path} does not exist")


def decode_all(
    members: Iterable[tuple[str, bytes, bool]],
    target: Callable[[str], Path],
    decode: Callable[[bytes, bool], np.ndarray],
    sample_rate: int,
    progress: Callable[[], object] = lambda: None,
) -> Outcome:
    """Decodes every member into a WAV file; one that fails is named and the rest goes on.

    Args:
        members: See `coded_members`.
        target: Gives the path for a name.
        decode: Gives (T,) float32 samples for bytes and whether they have a checksum.
        sample_rate: Hz.
        progress: Called after each.
    """
    outcome = Outcome()
    for name, data, checksum in members:
        try:
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise ValueError("the name points outside the output folder")
            wav = decode(data, checksum)
            write_audio(target(name), wav, sample_rate)
            outcome.written += 1
            outcome.seconds += len(wav) / sample_rate
            outcome.bytes += len(data)
        except (ValueError, OSError, SoundFileError) as error:
            outcome.failed[name] = str(error)
        finally:
            progress()
    return outcome
