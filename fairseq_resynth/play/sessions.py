"""The models behind the page: recordings come in as bytes, pictures and speech go out."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.inspection import inspect
from fairseq_resynth.codec.speech_codec import ENTROPY_FILE, SpeechCodec
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.convert import Converted, convert
from fairseq_resynth.conversion.references import Voice, measure_voice
from fairseq_resynth.data.audio.uploads import decode_audio_bytes
from fairseq_resynth.data.pitch.extraction import SILENCE_PEAK, extract_f0
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.evaluation.report.page import data_uri, flac_bytes, spectrogram_png
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.play.requests import Wish, in_words, parse_wish
from fairseq_resynth.resynthesizer import Resynthesizer

SHORTEST_SECONDS = 0.25  # four pitch periods of the lowest voice, and a few units
KEPT = 32  # recordings in memory; the oldest goes first


class NotKept(ValueError):
    """A recording that was never uploaded, or has been pushed out by later ones."""


@dataclass(frozen=True)
class Recording:
    """What was uploaded: (T,) float32 at 16 kHz, its (N,) F0 in Hz, and as a reference its voice."""

    wav: np.ndarray
    f0: np.ndarray
    voice: Voice | None = None


class Studio:
    """Serves one request at a time, whichever thread asks.

    Args:
        system: the bundle with its content encoder.
        codec: counts the bits a second; None: the bundle has no context model.
        max_seconds: of a recording.

    Raises:
        ValueError: the bundle has no content encoder.
    """

    def __init__(
        self, system: Resynthesizer, codec: SpeechCodec | None = None, max_seconds: float = 30.0
    ):
        if system.encoder is None:
            raise ValueError(
                "the bundle has no content encoder, so recordings cannot become units: export it with "
                "--kmeans FILE."
            )
        self.system, self.codec, self.max_seconds = system, codec, max_seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Recording] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """Returns what the page needs to know of the model, as JSON types."""
        streams = self.system.streams
        return {
            "identity": self.system.bundle.identity,
            "speakers": list(streams.speakers),
            "styles": list(streams.styles),
            "has_pitch": self.system.pitch.exists,
            "takes_reference": bool(streams.speaker_dim),
            "predicts_durations": self.system.bundle.generator.duration_predictor is not None,
            "num_units": streams.num_units,
            "unit_seconds": streams.unit_hop / streams.sample_rate,
            "max_seconds": self.max_seconds,
        }

    def add_source(self, data: bytes) -> dict[str, Any]:
        """Takes a recording that is to be spoken anew.

        Args:
            data: of an audio file.

        Returns:
            `key`, and what to show of it.

        Raises:
            ValueError: no audio, silent, shorter than a quarter of a second, or longer than allowed.
        """
        with self._lock:
            wav = self._decoded(data, "the recording")
            recording = Recording(wav, self._f0(wav))
            return {"key": self._keep(data, "source", recording), **_shown(wav, recording.f0)}

    def add_reference(self, data: bytes) -> dict[str, Any]:
        """Takes a few seconds of somebody whose voice is to speak; see `add_source`.

        Raises:
            ValueError: as above, no voice in it, or a model that only knows its own speakers.
        """
        streams = self.system.streams
        if not streams.speaker_dim:
            raise ValueError(
                "this model has a table of speakers and takes no reference: choose one of "
                f"{', '.join(streams.speakers) or 'none'}"
            )
        with self._lock:
            wav = self._decoded(data, "the reference")
            voice = measure_voice([("recording", wav)], streams)
            recording = Recording(wav, self._f0(wav), voice)
            entry = {name: round(float(value), 1) for name, value in voice.entry.items()}
            shown = {**_shown(wav, recording.f0), "statistics": entry}
            return {"key": self._keep(data, "reference", recording), **shown}

    def speak(self, body: bytes) -> dict[str, Any]:
        """Converts an uploaded recording.

        Args:
            body: JSON, see `parse_wish`.

        Returns:
            Speech and pictures as data: addresses, units, bits a second and what to know, as JSON types.

        Raises:
            NotKept: the recording is not here any more.
            ValueError: see `parse_wish` and `conversion.convert`.
        """
        wish = parse_wish(body, self.system.streams)
        with self._lock:
            source = self._find(wish.source)
            target = self._voice(wish.reference) if wish.reference else wish.voice
            done = convert(self.system, source.wav, target, wish.speaker, wish.controls)
            return self._told(done, wish)

    def _told(self, done: Converted, wish: Wish) -> dict[str, Any]:
        f0 = self._f0(done.wav) if done.f0 is None else done.f0
        streams = self.system.streams
        return {
            **_shown(done.wav, f0),
            "title": in_words(wish, lambda key: f"voice of {key[:8]}"),
            "units": done.speech.units.tolist(),
            "unit_seconds": streams.unit_hop / streams.sample_rate,
            "notes": list(done.notes),
            "bits": describe_rates(done.speech, streams, self.codec),
        }

    def _decoded(self, data: bytes, name: str) -> np.ndarray:
        wav = decode_audio_bytes(data, self.max_seconds, name)
        seconds = len(wav) / SAMPLE_RATE
        if seconds < SHORTEST_SECONDS:
            raise ValueError(
                f"{name} is {seconds:.2f} s long, expected {SHORTEST_SECONDS} s or more"
            )
        if np.abs(wav).max() < SILENCE_PEAK:
            raise ValueError(f"{name} is silent, expected speech: is the microphone on?")
        return wav

    def _f0(self, wav: np.ndarray) -> np.ndarray:
        return self.system.pitch.extract(wav) if self.system.pitch.exists else extract_f0(wav)

    def _keep(self, data: bytes, kind: str, recording: Recording) -> str:
        key = hashlib.sha256(kind.encode() + data).hexdigest()[:32]
        self._kept[key] = recording
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return key

    def _find(self, key: str) -> Recording:
        if key not in self._kept:
            raise NotKept("that recording is not here any more: record or upload it again")
        self._kept.move_to_end(key)
        return self._kept[key]

    def _voice(self, key: str) -> Voice:
        voice = self._find(key).voice
        if voice is None:
            raise ValueError("that recording was not uploaded as a voice: choose it again")
        return voice


def _shown(wav: np.ndarray, f0: np.ndarray) -> dict[str, Any]:
    voiced = f0[f0 > 0]
    return {
        "seconds": len(wav) / SAMPLE_RATE,
        "audio": data_uri(flac_bytes(wav, SAMPLE_RATE), "audio/flac"),
        "spectrogram": data_uri(spectrogram_png(wav, f0), "image/png"),
        "f0_mean": round(float(voiced.mean()), 1) if len(voiced) else None,
        "voiced_share": round(float((f0 > 0).mean()), 3) if len(f0) else 0.0,
    }


def load_studio(
    bundle: str, content_checkpoint: str | None, device: str, max_seconds: float
) -> Studio:
    """Loads a bundle, with its codec's context model if there is one.

    Args:
        bundle: folder, hub id or address.
        content_checkpoint: weights of the content encoder; not for log-mel units.
        device: where to compute.
        max_seconds: of a recording.

    Raises:
        FileNotFoundError, ValueError: something is missing or does not fit.
    """
    folder = find_bundle(bundle)
    system = Resynthesizer.from_pretrained(folder, content_checkpoint, device)
    model = folder / ENTROPY_FILE
    codec = None
    if model.is_file() and not system.streams.f0_channels:
        codec = SpeechCodec(system, EntropyModel.load(model))
    return Studio(system, codec, max_seconds)


PCM_BITS = 16 * 16000  # a second of the waveform at 16 bits


def stream_rates(streams: StreamSpec) -> dict[str, float]:
    """Returns the bits a second of each stream at a fixed length a code: rate * log2(codes).

    Continuous F0 has no codes and is left out.
    """
    rates = {"units": streams.sample_rate / streams.unit_hop * np.log2(streams.num_units)}
    if streams.num_f0_codes:
        rates["f0"] = streams.sample_rate / streams.f0_code_hop * np.log2(streams.num_f0_codes)
    return {name: round(float(rate), 1) for name, rate in rates.items()}


def describe_rates(
    speech: Utterance, streams: StreamSpec, codec: SpeechCodec | None
) -> dict[str, Any]:
    """Counts the bits of an utterance.

    Args:
        speech: its streams.
        streams: of the model.
        codec: None: the bundle has no context model, and only the fixed length is known.

    Returns:
        `fixed`, `coded` (bits a second by stream, `coded` None without a codec), `bytes` of the coded file
        (None), `pcm`, and whether there is `continuous` pitch, which none of these count.
    """
    rates = {"fixed": stream_rates(streams), "coded": None, "bytes": None, "pcm": PCM_BITS}
    rates["continuous"] = bool(streams.f0_channels)
    if codec is not None:
        data = codec.pack(speech)
        summary = inspect(codec.model, codec.identity, data).summary
        spent = {name: rate for name, rate in summary["bps"].items() if rate}
        rates.update(coded={**spent, "total": summary["total_bps"]}, bytes=len(data))
    return rates
