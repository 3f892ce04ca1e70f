"""Encoding and decoding of whole folders: files of the same source are reused, failures are named."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from soundfile import SoundFileError

from fairseq_resynth.codec.format.archive import Archive
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.conversion.folders import find_inputs
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.resume import Outcome, Record

SUFFIX, ARCHIVE_SUFFIX = ".rsyn", ".rsyna"


@dataclass
class CodecOutcome(Outcome):
    """What a run did.

    Attributes:
        bytes: Size of the compressed files, reused ones included.
    """

    bytes: int = 0


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
    return [
        Source(name, file, file.resolve().parent.name if by_folder else speaker)
        for name, file in find_inputs(path, out).items()
    ]


def encode_all(
    codec: SpeechCodec,
    sources: Iterable[Source],
    folder: Path | None,
    encode: Callable[[Source], bytes],
    settings: Any = None,
    progress: Callable[[], object] = lambda: None,
) -> tuple[CodecOutcome, list[tuple[str, bytes]]]:
    """Encodes every source; one that fails is named and the rest goes on.

    Args:
        codec: The codec.
        sources: The recordings.
        folder: Where the files go. Those of the same codec, settings and source are reused. None: nowhere.
        encode: Gives the bytes of a source.
        settings: JSON types, what they depend on in addition to codec and source.
        progress: Called after each.

    Returns:
        What was done, and (name, bytes) of each file if nothing is written.
    """
    outcome, members = CodecOutcome(), []
    record = None if folder is None else Record(folder)
    for source in sources:
        file = f"{source.name}{SUFFIX}"
        try:
            if record is None:
                members.append((source.name, encode(source)))
                outcome.bytes += len(members[-1][1])
            else:
                key = record.key(codec.identity, settings, source.speaker, source.path)
                if record.find(file, key) is not None:
                    outcome.reused += 1
                    outcome.bytes += (record.folder / file).stat().st_size
                    continue
                with record.writing(file, key) as temporary:
                    outcome.bytes += temporary.write_bytes(encode(source))
            outcome.written += 1
        except (ValueError, OSError) as error:
            outcome.failed[str(source.path)] = str(error)
        finally:
            progress()
    if record is not None:
        record.flush()
    return outcome, members


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


def decode_file(
    codec: SpeechCodec,
    member: tuple[str, bytes, bool],
    path: Path,
    decode: Callable[[bytes, bool], np.ndarray],
) -> CodecOutcome:
    """Decodes one member into the audio file `path`; see `decode_all`."""
    name, data, checksum = member
    outcome, sample_rate = CodecOutcome(bytes=len(data)), codec.resynthesizer.streams.sample_rate
    try:
        wav = decode(data, checksum)
        write_audio(path, wav, sample_rate)
        outcome.written, outcome.seconds = 1, len(wav) / sample_rate
    except (ValueError, OSError, SoundFileError) as error:
        outcome.failed[name] = str(error)
    return outcome


def decode_all(
    codec: SpeechCodec,
    members: Iterable[tuple[str, bytes, bool]],
    folder: Path,
    decode: Callable[[bytes, bool], np.ndarray],
    settings: Any = None,
    progress: Callable[[], object] = lambda: None,
) -> CodecOutcome:
    """Decodes every member into a WAV file; one that fails is named and the rest goes on.

    Args:
        codec: The codec.
        members: See `coded_members`.
        folder: Where the files go. Those of the same codec, settings and bytes are reused.
        decode: Gives (T,) float32 samples for bytes and whether they have a checksum.
        settings: JSON types, what they depend on in addition to codec and bytes.
        progress: Called after each.
    """
    outcome, sample_rate = CodecOutcome(), codec.resynthesizer.streams.sample_rate
    with Record(folder) as record:
        for name, data, checksum in members:
            try:
                if ".." in Path(name).parts or Path(name).is_absolute():
                    raise ValueError("the name points outside the output folder")
                key = record.key(codec.identity, settings, data, checksum)
                if record.find(f"{name}.wav", key) is not None:
                    outcome.reused += 1
                else:
                    wav = decode(data, checksum)
                    with record.writing(f"{name}.wav", key) as temporary:
                        write_audio(temporary, wav, sample_rate)
                    outcome.written += 1
                    outcome.seconds += len(wav) / sample_rate
                outcome.bytes += len(data)
            except (ValueError, OSError, SoundFileError) as error:
                outcome.failed[name] = str(error)
            finally:
                progress()
    return outcome
