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
    """What a run did."""

    bytes: int = 0  # size of the compressed files, reused ones included


@dataclass(frozen=True)
class Source:
    """One recording."""

    name: str  # its path within the output folder, without suffix
    path: Path
    speaker: str | None  # if the model knows the voice


def audio_sources(path: Path, out: Path, speaker: str | None, by_folder: bool) -> list[Source]:
    """The audio of a file or a folder, without that in `out`; errors are those of `find_inputs`.

    `speaker` speaks in all of it; with `by_folder` the name of a file's folder is its speaker instead.
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
        folder: Where the files go; those of the same codec, settings and source are reused. None: nowhere,
            and the (name, bytes) of each file are returned with what was done.
        encode: Gives the bytes of a source.
        settings: JSON types, what the bytes depend on in addition to codec and source.
        progress: Called after each.
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

    `name` is the only member wanted from an archive. Raises FileNotFoundError if there is no file, or no
    member of that name, and CodecError if an archive is damaged.
    """
    if path.is_dir():
        files = sorted(path.rglob(f"*{SUFFIX}"))
        if not files:
            raise FileNotFoundError(
                f"{path} has no *{SUFFIX} files. Make them with `resynth encode`."
            )
        for file in files:
            yield file.relative_to(path).with_suffix("").as_posix(), file.read_bytes(), True
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
    """Decodes every member (see `coded_members`) into a WAV file; one that fails is named.

    `decode` gives (T,) float32 samples for bytes and whether they have a checksum; `settings`, JSON types,
    are what the samples depend on besides. Files of the same codec, settings and bytes are reused.
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
