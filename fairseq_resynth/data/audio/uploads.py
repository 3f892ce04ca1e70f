"""Decoder of audio from untrusted senders: bytes in memory, within limits."""

import io
import itertools

import av
import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE

# Only containers with their own audio are allowed: FFmpeg would open the files and addresses that playlists
# (hls, concat, sdp, …) name.
CONTAINERS = "wav,w64,aiff,au,caf,flac,ogg,mp3,aac,mov,mp4,m4a,3gp,matroska,webm,amr"
# Containers with a reliable length in the header; if fewer samples follow, the end is missing.
_MEASURED = ("flac", "mov", "matroska")
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_ENDLESS = (0, 0xFFFFFFFF)  # RIFF sizes of a WAV that was written to a pipe


def decode_audio_bytes(data: bytes, max_seconds: float, name: str = "the recording") -> np.ndarray:
    """Decodes a whole audio file to (T,) float32 at 16 kHz; channels are averaged. `data` is WAV, FLAC, Ogg,
    Opus, WebM, MP3, M4A or another of `CONTAINERS`. Raises ValueError if it is empty, has no audio, is
    damaged or truncated, is longer than allowed, or has non-finite samples."""
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
    wav = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(wav):
        raise ValueError(f"{name} has no samples in it")
    if not np.isfinite(wav).all():
        raise ValueError(f"{name} has NaN or infinity in it, expected finite samples")
    seconds, announced = len(wav) / SAMPLE_RATE, int.from_bytes(data[4:8], "little")
    cut_off = f"{name} is cut off: its header announces"
    if seconds < 0.95 * declared - 0.1:
        raise ValueError(f"{cut_off} {declared:.1f} s, and {seconds:.1f} s are there")
    if data[:4] == b"RIFF" and announced not in _ENDLESS and announced + 8 > len(data) + 1:
        raise ValueError(f"{cut_off} {announced + 8} bytes, and {len(data)} are there")
    return wav


def _decode(data: bytes, max_seconds: float, name: str) -> tuple[list[np.ndarray], float]:
    """Decodes (n,) pieces at 16 kHz; also returns the duration in the header, 0 if there is none."""
    pieces, room = [], max_seconds * SAMPLE_RATE
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    with av.open(io.BytesIO(data), "r", options=options) as container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise ValueError(f"{name} has no sound in it, only {kinds}")
        stream = container.streams.audio[0]
        if not _LOWEST_RATE <= (rate := stream.codec_context.sample_rate) <= _HIGHEST_RATE:
            raise ValueError(
                f"{name} has {rate} samples per second, expected {_LOWEST_RATE} to {_HIGHEST_RATE}"
            )
        # FFmpeg's resampler is used, since its cost does not depend on the rates' common divisor.
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        for frame in itertools.chain(container.decode(stream), [None]):  # None: flush
            for converted in resampler.resample(frame):
                pieces.append(converted.to_ndarray().reshape(-1))
                room -= len(pieces[-1])
            if room < 0:
                raise ValueError(f"{name} is longer than {max_seconds:g} s, the longest allowed")
        measured = container.format.name.split(",")[0] in _MEASURED
        return pieces, (container.duration or 0) / av.time_base if measured else 0.0
