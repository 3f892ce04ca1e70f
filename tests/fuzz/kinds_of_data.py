"""Audio, and the files of a data directory."""

import io
import json
import zipfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from kinds import Kind, one
from mutations import (
    Mutation,
    change_array,
    change_bytes,
    change_json,
    change_json_lines,
    change_lines,
)
from small_corpus import write_f0_data

from fairseq_resynth.data.audio.decoding import choose_channels, decode
from fairseq_resynth.data.audio.files import audio_length, read_audio, zip_range
from fairseq_resynth.data.audio.pcm import PcmReader
from fairseq_resynth.data.audio.uploads import decode_audio_bytes
from fairseq_resynth.data.datasets.unit_split import UnitSplit
from fairseq_resynth.data.manifest import read_manifest, read_names
from fairseq_resynth.data.packed import open_audio, verify_pack
from fairseq_resynth.data.pitch.extraction import F0Cache
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.speaker_vectors import format_vector, read_vectors
from fairseq_resynth.data.storage.files import write_json
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.streams import (
    StreamSpec,
    read_streams,
    read_utterances,
    stream_sizes,
)
from fairseq_resynth.preparation.pack import pack_split

WAV = 0.1 * np.random.default_rng(0).standard_normal(1600)
SNDFILE = {
    "wav": "WAV",
    "flac": "FLAC",
    "ogg": "OGG",
    "mp3": "MP3",
    "aiff": "AIFF",
    "au": "AU",
    "w64": "W64",
    "sph": "NIST",
    "caf": "CAF",
}
FFMPEG = {
    "m4a": "aac",
    "mp4": "aac",
    "webm": "libopus",
    "mka": "pcm_s16le",
    "aac": "aac",
    "opus": "libopus",
}


def sound(format: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, WAV, 16000, format=format)
    return stream.getvalue()


@lru_cache
def _container(suffix: str, codec: str) -> bytes:
    stream, format = (
        io.BytesIO(),
        {"m4a": "ipod", "mka": "matroska", "aac": "adts", "opus": "ogg"}.get(suffix, suffix),
    )
    with av.open(stream, "w", format=format) as container:
        track = container.add_stream(codec, rate=48000, layout="mono")
        samples = (np.tile(WAV, 3) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.rate = 48000
        resampler = av.AudioResampler(
            format=track.codec_context.format,
            layout="mono",
            rate=48000,
            frame_size=track.codec_context.frame_size or 0,
        )
        for piece in (*resampler.resample(frame), None):
            container.mux(track.encode(piece))
    return stream.getvalue()


def _decode(path: Path) -> None:
    choose_channels(path, decode(path).wav, "mean")


def _upload(path: Path) -> None:
    decode_audio_bytes(path.read_bytes(), 20)


def _pipe(path: Path) -> None:
    for piece in PcmReader(io.BytesIO(path.read_bytes())).resampled():
        assert piece.dtype == np.float32


def _zipped(folder: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, (WAV * 32767).astype(np.int16))
    rows = []
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for name, data in (("a.flac", sound("FLAC")), ("a.npy", stream.getvalue())):
            archive.writestr(name, data)
            start = archive.getinfo(name).header_offset + 30 + len(name)
            rows.append(f"a.zip:{start}:{len(data)}\t1600\n")
    (folder / "train.tsv").write_text(".\n" + "".join(rows))


def _read_zipped(path: Path) -> None:
    manifest = read_manifest(path.parent / "train.tsv")
    errors = []
    for row in range(len(manifest)):
        assert ".." not in Path(manifest.name(row)).parts or ".." in manifest.paths[row]
        if zip_range(manifest.path(row)):
            try:
                read_audio(manifest.path(row))
            except (ValueError, FileNotFoundError) as error:
                errors.append(error)
    if errors:
        raise errors[-1]


AUDIO = {
    **{
        f"a.{name}": one(
            f"a.{name}",
            partial(sound, format),
            [_decode] if name == "sph" else [_decode, _upload],
            change_bytes,
        )
        for name, format in SNDFILE.items()
    },
    **{
        f"a.{name}": one(
            f"a.{name}",
            partial(_container, name, codec),
            [_decode, _upload],
            change_bytes,
            count=30,
        )
        for name, codec in FFMPEG.items()
    },
    "a.g722": one("a.g722", bytes(range(256)) * 4, [_decode], change_bytes),
    "prepared.wav": one("a.wav", partial(sound, "WAV"), [read_audio, audio_length], change_bytes),
    "prepared.flac": one(
        "a.flac", partial(sound, "FLAC"), [read_audio, audio_length], change_bytes
    ),
    "WAV on a pipe": one("a.wav", partial(sound, "WAV"), [_pipe], change_bytes),
    "zipped audio": Kind(_zipped, "a.zip", [_read_zipped], [change_bytes]),
    "places in archives": Kind(_zipped, "train.tsv", [_read_zipped], [change_bytes, change_lines]),
}


ENCODER = {"encoder": "resemblyzer", "encoder_hash": "0", "speaker_dim": 4}


def _data(folder: Path) -> None:
    write_f0_data(folder / "data", {"train": [2560, 3840]})
    data = folder / "data"
    for token in ("style", "language"):
        (data / f"train.{token}").write_text("a\nb\n")
    vectors = np.eye(4, dtype=np.float32)[:2]
    np.save(data / "train.speaker_vectors.npy", vectors)
    means = {
        name: format_vector(vector) for name, vector in zip(("anna", "boris"), vectors, strict=True)
    }
    write_json(data / "speaker_vectors.json", {**ENCODER, "means": means})
    with Record(data) as record:
        record.make(
            Outcome(), "made.txt", ["key"], lambda path: path.write_text("x") * 1.0, {"fact": 1}
        )


def _packed(folder: Path) -> None:
    _data(folder)
    pack_split(folder / "data", "train", folder / "packed")


def _read_split(folder: Path, **arguments: Any) -> None:
    streams = read_streams(folder, **arguments)
    split = UnitSplit(folder, "train", streams)
    for row in range(len(split.manifest)):
        split.utterance(row)
    stream_sizes([folder], read_utterances(folder))
    StreamSpec.from_dict(json.loads(json.dumps(streams.to_dict())))


def _read_data(path: Path) -> None:
    _read_split(path.parent)
    manifest = read_manifest(path.parent / "train.tsv")
    for row in range(len(manifest)):
        read_audio(manifest.path(row))


def _read_vectors(path: Path) -> None:
    _read_split(path.parent, speaker_input="vector")
    read_vectors(path.parent, "train", 2)


def _read_f0(path: Path) -> None:
    data = path.parents[path.parent.name == "f0"]
    cache = F0Cache(data, "train", read_manifest(data / "train.tsv"))
    statistics = SpeakerStatistics.load(data / "speakers.json")
    for row in range(len(cache)):
        statistics.normalize(cache[row], "anna")


def _read_pack(path: Path) -> None:
    data = path.parent.parent
    manifest = read_manifest(data / "train.tsv")
    audio = open_audio(data, "train", manifest)
    for row in range(len(manifest)):
        audio.read(row, 0, 400)
    _read_split(data)


def _verify_pack(path: Path) -> None:
    verify_pack(path.parent.parent, "train")


def _read_record(path: Path) -> None:
    data = path.parents[1]
    record = Record(data)
    record.find("made.txt", record.key("key"))
    record.facts("made.txt")
    record.content(data / "units.json")


def _in_data(name: str, reader: Callable, *changes: Mutation, count: int = 30) -> Kind:
    return Kind(_data, f"data/{name}", [reader], changes or (change_bytes, change_lines), count)


def _in_pack(name: str, *changes: Mutation) -> Kind:
    return Kind(_packed, f"packed/train.pack/{name}", [_read_pack, _verify_pack], changes, 30)


DATA = {
    "manifest": one(
        "train.tsv", b".\na/b.wav\t800\nc.wav\t320\n", [read_manifest], change_bytes, change_lines
    ),
    "names": one(
        "train.speaker",
        b"anna\nboris\n",
        [lambda path: read_names(path, 2)],
        change_bytes,
        change_lines,
    ),
    "units.json": _in_data("units.json", _read_data, change_bytes, change_json),
    "f0_codes.json": _in_data("f0_codes.json", _read_data, change_bytes, change_json),
    "speaker_vectors.json": _in_data(
        "speaker_vectors.json", _read_vectors, change_bytes, change_json
    ),
    "speakers.json": _in_data("speakers.json", _read_f0, change_bytes, change_json),
    "f0.json": _in_data("f0/train.json", _read_f0, change_bytes, change_json),
    "f0.npy": _in_data("f0/train.npy", _read_f0, change_bytes, change_array),
    "speaker_vectors.npy": _in_data(
        "train.speaker_vectors.npy", _read_vectors, change_bytes, change_array
    ),
    "train.tsv": _in_data("train.tsv", _read_data),
    "train.units": _in_data("train.units", _read_data),
    "train.f0": _in_data("train.f0", _read_data),
    "train.speaker": _in_data("train.speaker", _read_data),
    "train.style": _in_data("train.style", _read_data),
    "train.language": _in_data("train.language", _read_data),
    "index.json of a pack": _in_pack("index.json", change_bytes, change_json),
    "units of a pack": _in_pack("units.npy", change_bytes, change_array),
    "lengths of a pack": _in_pack("units_lengths.npy", change_bytes, change_array),
    "audio of a pack": _in_pack("audio-00000.npy", change_bytes, change_array),
    "record": Kind(
        _data, "data/.made_by/*.jsonl", [_read_record], [change_bytes, change_json_lines], 50
    ),
}
