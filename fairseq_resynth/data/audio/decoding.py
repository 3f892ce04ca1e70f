"""Any audio: decoders, how much of a file they must give, and the choice among its channels."""

import contextlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from fairseq_resynth.data.audio.files import (
    FileRange,
    declared_frames,
    require_file,
    require_finite,
)
from fairseq_resynth.data.storage.messages import shown

if TYPE_CHECKING:
    import av

# Streams without a header: the file's suffix determines the demuxer.
_HEADERLESS = {".g722": "g722", ".g726": "g726", ".al": "alaw", ".ul": "mulaw", ".gsm": "gsm"}
# Suffixes that `resynth preprocess` searches for without --postfix.
_HEADED = (
    ".wav .flac .ogg .opus .oga .mp3 .m4a .aac .aif .aiff .aifc .au .snd .caf .w64 .rf64 .sph .wv1 .wv2 .wma "
    ".webm .weba .mp4 .m4b .m4v .mov .mkv .mka .avi .flv .3gp .3ga .amr .awb .mp2 .ac3 .eac3 .spx .wv .tta "
    ".ape .voc"
)
AUDIO_SUFFIXES = frozenset(_HEADED.split()) | frozenset(_HEADERLESS)
SILENT_DB = -40  # a channel this far below the loudest one is silent
CANCEL_DB = -20  # channels whose mean is this far below them cancel
UNCORRELATED = 0.1  # channels whose correlation is smaller have different sources
# Samples of floats beyond this, 20 dB above full scale, are integers that were never divided.
LARGEST = 10
_SLOWEST = 1000  # Hz; a header that says less is wrong
_SLACK = 0.2  # seconds that the duration of a compressed file may exceed its samples
# FFmpeg's containers that declare a duration
_MEASURED = ("flac", "mov", "matroska", "wav", "aiff")
# Samples that are decoded at once; of a damaged file again in short blocks, of which the last is lost.
_BLOCKS = (1 << 20, 1024)


@dataclass
class Decoded:
    """The samples of a file, (T, channels) float32, their rate in Hz, and the seconds that the file declares
    but does not contain (0: none)."""

    wav: np.ndarray
    rate: int
    missing: float = 0.0


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turns whatever a decoder raises into a ValueError that names the file."""
    try:
        yield
    except Exception as error:  # decoders raise errors of many kinds for damaged input
        if type(error) is ValueError and str(error).startswith(str(path)):
            raise
        reason = shown(getattr(error, "strerror", "") or error) or type(error).__name__
        raise ValueError(f"{path} is not readable as audio: {reason}") from error


def decode(path: str | Path, accept_truncated: bool = False) -> Decoded:
    """Decodes any audio that libsndfile or FFmpeg (PyAV) reads; lossy formats may exceed 1. Raises
    FileNotFoundError if there is no file; ValueError if it is not audio, has no or non-finite samples, is
    compressed in a way that no decoder reads, or if its decoder reports damage or gives fewer samples than
    the file declares, which `accept_truncated` allows."""
    path = Path(path)
    require_file(path)
    with naming(path):
        found = _decode(path)
    if found.missing and not accept_truncated:
        seconds = len(found.wav) / found.rate
        raise ValueError(
            f"{path} is damaged or cut off: it declares {seconds + found.missing:.2f} s, found "
            f"{seconds:.2f} s; copy it again, or take what there is with "
            "`resynth preprocess --accept-truncated`"
        )
    require_samples(path, found.wav)
    if found.rate < _SLOWEST:
        raise ValueError(
            f"{path}: the header says {found.rate} Hz, expected {_SLOWEST} Hz or more; write the true rate "
            "into it"
        )
    return found


def _decode(path: Path) -> Decoded:
    if demuxer := _HEADERLESS.get(path.suffix.lower()):
        return _decode_with_av(path, demuxer)
    _refuse_compressed_sphere(path)
    try:
        sound = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError:
        _refuse_text(path)
        return _decode_with_av(path)
    with sound:  # its errors are damage, which another decoder would only conceal
        if sound.format == "OGG" and len(links := _ogg_links(path)) > 1:
            return _decode_links(path, links)
        if sound.frames == 0 and re.search(r"^data : 0$", sound.extra_info, re.M):
            return _decode_with_av(path)  # a WAV whose length was never written
        return _decode_with_sndfile(sound, path)


def require_samples(name: str | Path, wav: np.ndarray) -> None:
    """Raises ValueError if decoded audio, (T, channels), has no samples, some that are not finite, or
    integers that were never divided."""
    if len(wav) == 0:
        raise ValueError(f"{name}: the file has no samples")
    for channel in wav.T:
        require_finite(name, channel)
    if (peak := float(np.abs(wav).max())) > LARGEST:
        raise ValueError(
            f"{name}: samples reach {peak:.5g}, expected floats from -1 to 1; if they are integers that "
            "were stored as floats, divide them by 32768"
        )


def load_any_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Decodes a file to (T,) float32, the mean of its channels that are not silent, and its rate in Hz.
    Raises as `decode` and `choose_channels` do."""
    found = decode(path)
    return choose_channels(path, found.wav, "mean")[0], found.rate


def _refuse_compressed_sphere(path: Path) -> None:
    with path.open("rb") as stream:
        header = stream.read(1024)
    coding = re.search(rb"sample_coding -s\d+ (\S*(shorten|wavpack|shortpack)\S*)", header)
    if header.startswith(b"NIST_1A") and coding:
        raise ValueError(
            f"{path} is NIST SPHERE with {coding[2].decode().capitalize()} compression "
            f"({coding[1].decode()}), which no decoder here reads; expand it first: "
            "`sph2pipe -f wav IN.sph OUT.wav`"
        )


def _refuse_text(path: Path) -> None:
    """Raises ValueError for what a failed download leaves in place of audio."""
    with path.open("rb") as stream:
        start = stream.read(200).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a pointer of Git LFS, not the audio itself: run `git lfs pull`"
        )
    if start[:1] in (b"<", b"{") and start.isascii():
        raise ValueError(f"{path} is text, not audio, and may be the error page of a download")


def _ogg_links(path: Path) -> list[int]:
    """The offsets in bytes at which the links of an Ogg file begin, by its pages' headers (RFC 3533)."""
    links = [0]
    with path.open("rb") as stream:
        ended, start = False, 0
        while (header := stream.read(27))[:4] == b"OggS" and len(header) == 27:
            begins, ends = header[5] & 2, header[5] & 4
            if ended and begins:
                links.append(start)
            ended = bool(ends) or (ended and not begins)
            stream.seek(sum(stream.read(header[26])), os.SEEK_CUR)
            start = stream.tell()
    return links


def _decode_links(path: Path, links: list[int]) -> Decoded:
    """Decodes a chained Ogg file, of which libsndfile reads only the first link."""
    found = []
    with path.open("rb") as file:
        for start, end in itertools.pairwise([*links, path.stat().st_size]):
            with soundfile.SoundFile(FileRange(file, start, end - start)) as sound:
                found.append(_decode_with_sndfile(sound, path))
    shapes = {(link.rate, link.wav.shape[1]) for link in found}
    if len(shapes) > 1:
        kinds = ", ".join(f"{rate} Hz with {channels} channels" for rate, channels in shapes)
        raise ValueError(f"{path} is a chain of Ogg streams of several kinds: {kinds}; split it")
    wav = np.concatenate([link.wav for link in found])
    return Decoded(wav, found[0].rate, sum(link.missing for link in found))


def _decode_with_sndfile(sound: soundfile.SoundFile, path: Path) -> Decoded:
    declared, blocks = declared_frames(sound, path), []
    for size in _BLOCKS:
        try:
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                blocks.append(block)
            break
        except soundfile.LibsndfileError:
            if size > _BLOCKS[-1]:
                blocks.clear()
                sound = soundfile.SoundFile(os.fsencode(path))
    wav = np.concatenate(blocks) if blocks else np.zeros((0, sound.channels), np.float32)
    missing = max(0, declared - len(wav)) / sound.samplerate
    if sound.format == "MP3" and (missing <= _SLACK or not _declares_frames(path)):
        missing = 0.0  # without a header of its own, the length of an MP3 is an estimate
    return Decoded(wav, sound.samplerate, missing)


def _declares_frames(path: Path) -> bool:
    """Whether an MP3 has a Xing, Info or VBRI header, which is in the first frame after any ID3 tag."""
    with path.open("rb") as stream:
        tag = stream.read(10)
        size = sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))
        stream.seek(10 + size if tag[:3] == b"ID3" else 0)
        frame = stream.read(4096)
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))


def samples_of(frame: "av.AudioFrame") -> np.ndarray:
    """The (n, channels) samples of an interleaved frame. Reading planar ones of 8 and more channels crashes
    PyAV 18."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels)


class FfmpegFile(io.FileIO):
    """A file for PyAV. FFmpeg seeks to where a damaged header says, and PyAV prints the traceback of an error
    that a file object raises; -1 tells FFmpeg that the seek failed."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1


def _decode_with_av(path: Path, demuxer: str | None = None) -> Decoded:
    import av

    # A playlist may not name other files and addresses. The file object also allows any file name.
    options = {"protocol_whitelist": ""}
    with (
        FfmpegFile(path) as file,
        av.open(file, format=demuxer, options=options) as container,
    ):
        if not container.streams.audio:
            raise ValueError(f"{path} has no audio stream")
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        resampler = av.AudioResampler(format="flt", rate=rate)
        frames = [
            samples_of(converted)
            for frame in itertools.chain(container.decode(stream), [None])  # None: flush
            for converted in resampler.resample(frame)
        ]
        declared = 0.0
        if container.format.name.split(",")[0] in _MEASURED:
            if stream.duration:
                declared = float(stream.duration * stream.time_base)
            elif len(container.streams) == 1:
                declared = (container.duration or 0) / av.time_base
    wav = np.concatenate(frames) if frames else np.zeros((0, 1), np.float32)
    missing = declared - len(wav) / rate
    return Decoded(wav, rate, missing if missing > _SLACK else 0.0)


def channel_levels(wav: np.ndarray) -> np.ndarray:
    """The levels of the channels of (T, channels) below the loudest, (channels,) in dB; 0 for all of
    digital silence."""
    power = np.mean(np.square(wav, dtype=np.float64), axis=0)
    return 10 * np.log10(np.maximum(power, 1e-30) / max(power.max(), 1e-30))


def are_uncorrelated(wav: np.ndarray) -> bool:
    """Whether two channels of (T, channels) that are not silent are nearly uncorrelated, as those of two
    speakers on a telephone are."""
    heard = wav[:, channel_levels(wav) > SILENT_DB]
    if heard.shape[1] < 2 or np.any(np.ptp(heard, axis=0) == 0):
        return False
    return bool(np.abs(np.corrcoef(heard, rowvar=False)).min() < UNCORRELATED)


def check_channel(channel: str) -> str:
    """Returns a value of `--channel`; raises ValueError if it is none."""
    if channel not in ("left", "right", "mean", "each") and not re.fullmatch(
        "[1-9][0-9]*", channel
    ):
        raise ValueError(
            f"--channel is {channel}, expected left, right, mean, each or a number from 1"
        )
    return channel


def choose_channels(path: str | Path, wav: np.ndarray, channel: str) -> dict[int, np.ndarray]:
    """The (T,) float32 waveforms that `--channel` chooses from (T, channels): for `left`, `right` or a
    number, that channel; for `mean`, the mean of the channels that are not silent, which keeps the level of a
    single one; each under 0. For `each`, all channels that are not silent, under their numbers from 1. Raises
    ValueError if the file has no such channel, or the channels cancel in their mean."""
    heard = np.flatnonzero(channel_levels(wav) > SILENT_DB)
    if channel == "each":
        return {int(index) + 1: np.ascontiguousarray(wav[:, index]) for index in heard}
    if channel == "mean":
        chosen = wav[:, heard].mean(axis=1) if len(heard) > 1 else wav[:, heard[0]]
        loudest = np.sqrt(np.mean(np.square(wav[:, heard], dtype=np.float64), axis=0).max())
        level = np.sqrt(np.mean(np.square(chosen, dtype=np.float64)))
        if level < loudest * 10 ** (CANCEL_DB / 20):
            below = f"{20 * np.log10(loudest / level):.0f} dB" if level else "infinitely far"
            raise ValueError(
                f"{path}: the {len(heard)} channels cancel, as those in opposite phase do: their mean is "
                f"{below} below them; choose one with `resynth preprocess --channel left`"
            )
        return {0: np.ascontiguousarray(chosen, dtype=np.float32)}
    number = {"left": 1, "right": 2}.get(channel) or int(channel)
    if number > wav.shape[1]:
        raise ValueError(
            f"{path} has {wav.shape[1]} channel(s), expected {number} or more for --channel {channel}"
        )
    return {0: np.ascontiguousarray(wav[:, number - 1])}
