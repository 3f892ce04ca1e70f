"""Decoder of audio from untrusted senders: bytes in memory, within limits, in a process of its own."""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import av
import av.subtitles.stream  # PyAV would import it when a file has subtitles, and may then open no file
import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import (
    SILENT_DB,
    are_uncorrelated,
    channel_levels,
    choose_channels,
    require_samples,
    samples_of,
)
from fairseq_resynth.data.audio.pcm import HIGHEST_RATE, LOWEST_RATE

# Only containers with their own audio are allowed: FFmpeg would open the files and addresses that playlists
# (hls, concat, sdp, …) name.
CONTAINERS = "wav,w64,aiff,au,caf,flac,ogg,mp3,aac,mov,mp4,m4a,3gp,matroska,webm,amr"
# Their decoders. FFmpeg would also decode pictures, to find out what a file contains, and has decoders of
# hundreds of old formats that hardly anybody tests.
_PCM = "alaw mulaw u8 s8 s16le s16be s24le s24be s32le s32be s64le s64be f32le f32be f64le f64be"
CODECS = (
    *("aac", "ac3", "alac", "amrnb", "amrwb", "eac3", "flac", "mp2", "mp2float", "mp3", "mp3float"),
    *("opus", "libopus", "speex", "libspeex", "vorbis", "libvorbis", "wavpack"),
    *("g726", "g726le", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm", "gsm_ms"),
    *(f"pcm_{kind}" for kind in _PCM.split()),
)
WAIT_SECONDS = 30  # until the decoding of one upload is ended
# Containers with a reliable length in the header; if fewer samples follow, the end is missing.
_MEASURED = ("flac", "mov", "matroska")
_ENDLESS = (0, 0xFFFFFFFF)  # RIFF sizes of a WAV that was written to a pipe


class UploadDecoder:
    """Decodes as `decode_audio_bytes` does, one upload at a time, from any thread, in a process of its own.

    A header of a few bytes can make FFmpeg ask for gigabytes, and damage can crash it. So each upload has a
    process with little memory and time, which an idle one forks. Without `os.fork`, it is decoded here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def decode(
        self, data: bytes, max_seconds: float, name: str = "the recording"
    ) -> tuple[np.ndarray, list[str]]:
        """Returns and raises as `decode_audio_bytes`; ValueError as well for too much memory or time."""
        if not hasattr(os, "fork"):
            return decode_audio_bytes(data, max_seconds, name)
        with self._lock:
            if self._closed:
                raise ValueError(f"{name} could not be decoded: the server is ending")
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            into, out = self._process.stdin, self._process.stdout
            assert into is not None and out is not None
            try:
                into.write(json.dumps([max_seconds, name, len(data)]).encode() + b"\n" + data)
                into.flush()
                answer = json.loads(out.readline())
                samples = out.read(answer["bytes"])
                if len(samples) < answer["bytes"]:
                    raise EOFError
            except (OSError, ValueError, EOFError) as error:  # somebody ended the process
                self._process.kill()
                self._process.wait()
                raise ValueError(f"{name} could not be decoded: try again") from error
        if "error" in answer:
            raise ValueError(answer["error"])
        return np.frombuffer(samples, np.float32).copy(), answer["notes"]

    def close(self) -> None:
        """Ends the process, also while it decodes: uploads that wait for it raise ValueError."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @staticmethod
    def _start() -> "subprocess.Popen[bytes]":
        path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads, "PYTHONPATH": path},
        )


def _serve() -> None:
    """The idle process of an `UploadDecoder`; it ends with its parent, whose end of the pipe then closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole process group
    into, out = sys.stdin.buffer, sys.stdout.buffer
    while line := into.readline():
        max_seconds, name, size = json.loads(line)
        data = into.read(size)
        reader, writer = os.pipe()
        if not (child := os.fork()):
            status = 1
            try:
                os.close(reader)
                with open(writer, "wb") as answer:
                    _answer(answer, data, max_seconds, name)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with open(reader, "rb") as stream:
            answered = stream.read()
        if os.waitpid(child, 0)[1]:
            error = (
                f"{name} needs more memory or time to decode than audio of {max_seconds:g} s, or makes the "
                "decoder fail"
            )
            answered = json.dumps({"error": error, "bytes": 0}).encode() + b"\n"
        out.write(answered)
        out.flush()


def _answer(out: BinaryIO, data: bytes, max_seconds: float, name: str) -> None:
    """Writes a line of JSON and the float32 samples, from a process that is limited from here on."""
    with contextlib.suppress(ImportError, ValueError):  # other systems lack some of the limits
        import resource

        # Samples of up to 16 channels, and the file several times.
        memory = (1 << 29) + 4 * len(data) + round(max_seconds * (1 << 20))
        processor = 2 + round(max_seconds / 20)
        # It needs no files and no connections, whatever a container may name.
        for nothing in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
            resource.setrlimit(nothing, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.alarm(WAIT_SECONDS)
    try:
        wav, notes = decode_audio_bytes(data, max_seconds, name)
    except ValueError as error:
        out.write(json.dumps({"error": str(error), "bytes": 0}).encode() + b"\n")
    else:
        out.write(json.dumps({"notes": notes, "bytes": wav.nbytes}).encode() + b"\n")
        out.write(wav.tobytes())


def decode_audio_bytes(
    data: bytes, max_seconds: float, name: str = "the recording"
) -> tuple[np.ndarray, list[str]]:
    """Decodes a whole audio file to (T,) float32 at 16 kHz, the mean of its channels that are not silent;
    also returns what a user should know of the channels. `data` is WAV, FLAC, Ogg, Opus, WebM, MP3, M4A or
    another of `CONTAINERS`. Raises ValueError if it is empty, has no audio, is damaged or truncated, is
    longer than allowed, has non-finite samples, or channels that cancel."""
    if not data:
        raise ValueError(f"{name} is empty (0 bytes), expected an audio file")
    try:
        pieces, declared = _decode(data, max_seconds, name)
    except (av.error.FFmpegError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{name} is not readable as audio, or is damaged or cut off ({reason}); expected WAV, FLAC, "
            "MP3, M4A, Ogg or WebM"
        ) from error
    wav = np.concatenate(pieces) if pieces else np.zeros((0, 1), np.float32)
    require_samples(name, wav)
    seconds, announced = len(wav) / SAMPLE_RATE, int.from_bytes(data[4:8], "little")
    cut_off = f"{name} is cut off: its header announces"
    if seconds < 0.95 * declared - 0.1:
        raise ValueError(f"{cut_off} {declared:.1f} s, and {seconds:.1f} s are there")
    if data[:4] == b"RIFF" and announced not in _ENDLESS and announced + 8 > len(data) + 1:
        raise ValueError(f"{cut_off} {announced + 8} bytes, and {len(data)} are there")
    levels, notes = channel_levels(wav), []
    if silent := int(np.sum(levels <= SILENT_DB)):
        verb = "is" if silent == 1 else "are"
        notes.append(f"{silent} of {len(levels)} channels {verb} silent and left out")
    if are_uncorrelated(wav):
        notes.append("the channels are nearly uncorrelated: two speakers may have been mixed")
    return choose_channels(name, wav, "mean")[0], notes


def _decode(data: bytes, max_seconds: float, name: str) -> tuple[list[np.ndarray], float]:
    """Decodes (n, channels) pieces at 16 kHz; also returns the duration in the header, 0 if there is none."""
    pieces, room = [], max_seconds * SAMPLE_RATE
    codecs = ",".join(CODECS)
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "", "codec_whitelist": codecs}
    with av.open(io.BytesIO(data), "r", options=options) as container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise ValueError(f"{name} has no sound in it, only {kinds}")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise ValueError(f"{name} has sound of an unknown encoding")
        if (codec := stream.codec_context.name) not in CODECS:  # the options limit only the probing
            raise ValueError(
                f"{name} has sound in the encoding {codec}, expected a common one: save it as WAV or FLAC"
            )
        if not LOWEST_RATE <= (rate := stream.codec_context.sample_rate) <= HIGHEST_RATE:
            raise ValueError(
                f"{name} has {rate} samples per second, expected {LOWEST_RATE} to {HIGHEST_RATE}"
            )
        # FFmpeg's resampler is used, since its cost does not depend on the rates' common divisor.
        resampler, forms = av.AudioResampler(format="flt", rate=SAMPLE_RATE), set()
        for frame in itertools.chain(container.decode(stream), [None]):  # None: flush
            if frame is not None:
                forms.add((frame.sample_rate, frame.layout.nb_channels))
            if len(forms) > 1:
                raise ValueError(
                    f"{name} has parts of different sample rates or channels, expected one recording"
                )
            for converted in resampler.resample(frame):
                pieces.append(samples_of(converted))
                room -= len(pieces[-1])
            if room < 0:
                raise ValueError(f"{name} is longer than {max_seconds:g} s, the longest allowed")
        measured = container.format.name.split(",")[0] in _MEASURED
        return pieces, (container.duration or 0) / av.time_base if measured else 0.0


if __name__ == "__main__":
    _serve()
