"""The models behind the page: recordings come in as bytes, speech and pictures go out."""

import atexit
import hashlib
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.inspection import inspect
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.constants import SAMPLE_RATE, TOKENS
from fairseq_resynth.conversion.convert import convert
from fairseq_resynth.conversion.live import LiveConverter
from fairseq_resynth.conversion.references import Voice, measure_voice
from fairseq_resynth.data.audio.uploads import UploadDecoder
from fairseq_resynth.data.pitch.extraction import SILENCE_PEAK
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.evaluation.report.page import data_uri, flac_bytes
from fairseq_resynth.measures.pictures import spectrogram_png
from fairseq_resynth.play.requests import ConversionRequest, parse_request, request_of
from fairseq_resynth.resynthesizer import Resynthesizer

SHORTEST_SECONDS = 0.25  # 15 pitch periods at 60 Hz, and a dozen units
MAX_RECORDINGS = 32  # kept in memory; the oldest is dropped first
PCM_BITS = 16 * SAMPLE_RATE  # bit/s of the waveform with 16 bits per sample
_DECODER = UploadDecoder()
atexit.register(_DECODER.close)
Result = TypeVar("Result")


class RecordingExpired(ValueError):
    """A recording that was never uploaded, or was dropped because of later ones."""


@dataclass(frozen=True)
class Upload:
    """An upload: (T,) float32 at 16 kHz and, for a reference, its voice."""

    wav: np.ndarray
    voice: Voice | None = None


class Turns:
    """Runs functions one at a time, in one thread, so that their memory does not grow with the number of
    clients. They run in the order they came, except that a live one follows each that is not and the other
    way round: neither kind waits for many of the other."""

    def __init__(self) -> None:
        self._waiting: dict[bool, deque[Callable[[], None] | None]] = {
            True: deque(),
            False: deque(),
        }
        self._given = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def run(self, function: Callable[[], Result], live: bool = False) -> Result:
        """Waits for its turn; returns and raises what the function does."""
        future: Future[Result] = Future()

        def fulfil() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._waiting[live].append(fulfil)
        self._given.release()
        return future.result()

    def close(self) -> None:
        """Ends the thread after what it is at, and drops what waits: a thread that is in torch when Python
        ends would abort the process."""
        for waiting in self._waiting.values():
            waiting.appendleft(None)
        self._given.release()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        live = False
        while True:
            self._given.acquire()
            live = not live if self._waiting[not live] else live
            work = self._waiting[live].popleft()
            if work is None:
                return
            work()
            del work  # and with it what the client sent


class PlaySession:
    """Answers one request at a time, from any thread; recordings have up to `max_seconds`.

    The codec counts the bits of coded speech. Raises ValueError for a system without a content encoder.
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
        self._turns = Turns()
        weakref.finalize(self, self._turns.close)
        self._recordings: OrderedDict[str, Upload] = OrderedDict()

    @classmethod
    def load(
        cls, bundle: str, content_checkpoint: str | None, device: str, max_seconds: float
    ) -> "PlaySession":
        """Loads a bundle (folder, hub id or address), with its codec's context model if it has one."""
        system = Resynthesizer.from_pretrained(bundle, content_checkpoint, device)
        model, codec = system.bundle.entropy, None
        if model and not system.streams.f0_channels:  # the codec stores no continuous F0
            codec = SpeechCodec(system, EntropyModel.load(model))
        return cls(system, codec, max_seconds)

    def describe(self) -> dict[str, Any]:
        """What the page needs to know about the model, as JSON types."""
        streams = self.system.streams
        return {
            "identity": self.system.bundle.identity,
            "speakers": list(streams.speakers),
            "tokens": {name: list(streams.tokens.get(name, ())) for name in TOKENS},
            "has_pitch": self.system.pitch.exists,
            "takes_reference": bool(streams.speaker_dim),
            "predicts_durations": self.system.bundle.generator.duration_predictor is not None,
            "num_units": streams.num_units,
            "unit_seconds": streams.unit_hop / streams.sample_rate,
            "max_seconds": self.max_seconds,
        }

    def add_source(self, data: bytes) -> dict[str, Any]:
        """Keeps a recording that is to be converted; returns its `key` and what to show of it.

        Raises ValueError if it is not audio, silent, shorter than 0.25 s or longer than allowed.
        """
        wav, notes = self._decoded(data, "the recording")
        key = self._key(data, "source")
        return self._turns.run(
            lambda: {**self._summary(wav), "notes": notes, "key": self._keep(key, Upload(wav))}
        )

    def add_reference(self, data: bytes) -> dict[str, Any]:
        """Keeps a few seconds of the target speaker; returns and raises the same as `add_source`.

        Raises ValueError as well without a voice in it, or for a model with a table of speakers.
        """
        streams = self.system.streams
        if not streams.speaker_dim:
            raise ValueError(
                "this model has a table of speakers and takes no reference: choose one of "
                f"{', '.join(streams.speakers) or 'none'}"
            )
        wav, notes = self._decoded(data, "the reference")
        key = self._key(data, "reference")

        def measured() -> dict[str, Any]:
            voice = measure_voice([("recording", wav)], streams)
            entry = {name: round(float(value), 1) for name, value in voice.entry.items()}
            summary = {**self._summary(wav), "statistics": entry, "notes": notes}
            return {**summary, "key": self._keep(key, Upload(wav, voice))}

        return self._turns.run(measured)

    def speak(self, body: bytes) -> dict[str, Any]:
        """Converts an uploaded recording as the JSON of `parse_request` says.

        Returns speech and pictures as data: addresses, the units, bits per second and notes, as JSON types.
        Raises RecordingExpired if the recording is no longer kept, else ValueError.
        """
        request = parse_request(body, self.system.streams)
        return self._turns.run(lambda: self._convert(request))

    def _convert(self, request: ConversionRequest) -> dict[str, Any]:
        source, target = self._find(request.source), self._target(request)
        done = convert(self.system, source.wav, target, request.speaker, request.controls)
        streams = self.system.streams
        return {
            **self._summary(done.wav, done.f0),
            "title": request.title,
            "units": done.speech.units.tolist(),
            "unit_seconds": streams.unit_hop / streams.sample_rate,
            "notes": list(done.notes),
            "bits": bit_rates(done.speech, streams, self.codec),
        }

    def start_live(self, values: dict[str, Any], sample_rate: int) -> LiveConverter:
        """A live conversion as the JSON of `parse_request` without a source says; its result is at
        `sample_rate` in Hz. Raises as `speak`, and ValueError for what a live stream cannot change."""
        request = request_of({**values, "source": "live"}, self.system.streams)
        speaker, controls = request.speaker, request.controls
        return self._turns.run(
            lambda: LiveConverter(
                self.system, self._target(request), speaker, controls, output_rate=sample_rate
            ),
            live=True,
        )

    def push_live(
        self, converter: LiveConverter, samples: np.ndarray | None, sample_rate: int
    ) -> np.ndarray:
        """What `converter.push` returns for (n,) samples, or `flush` for None, while nobody else uses the
        model."""
        return self._turns.run(
            lambda: converter.flush() if samples is None else converter.push(samples, sample_rate),
            live=True,
        )

    def _target(self, request: ConversionRequest) -> str | Voice | None:
        if not request.reference:
            return request.voice
        voice = self._find(request.reference).voice
        if voice is None:
            raise ValueError("that recording was not uploaded as a voice: choose it again")
        return voice

    def _decoded(self, data: bytes, name: str) -> tuple[np.ndarray, list[str]]:
        wav, notes = _DECODER.decode(data, self.max_seconds, name)
        seconds = len(wav) / SAMPLE_RATE
        if seconds < SHORTEST_SECONDS:
            raise ValueError(
                f"{name} is {seconds:.2f} s long, expected {SHORTEST_SECONDS} s or more"
            )
        if np.abs(wav).max() < SILENCE_PEAK:
            raise ValueError(f"{name} is silent, expected speech: is the microphone on?")
        return wav, notes

    def _summary(self, wav: np.ndarray, f0: np.ndarray | None = None) -> dict[str, Any]:
        f0 = self.system.pitch.extract(wav) if f0 is None else f0
        voiced = f0[f0 > 0]
        return {
            "seconds": len(wav) / SAMPLE_RATE,
            "audio": data_uri(flac_bytes(wav, SAMPLE_RATE), "audio/flac"),
            "spectrogram": data_uri(spectrogram_png(wav, f0), "image/png"),
            "f0_mean": round(float(voiced.mean()), 1) if len(voiced) else None,
            "voiced_share": round(float((f0 > 0).mean()), 3) if len(f0) else 0.0,
        }

    @staticmethod
    def _key(data: bytes, kind: str) -> str:
        return hashlib.sha256(kind.encode() + data).hexdigest()[:32]

    def _keep(self, key: str, recording: Upload) -> str:
        self._recordings[key] = recording
        self._recordings.move_to_end(key)
        while len(self._recordings) > MAX_RECORDINGS:
            self._recordings.popitem(last=False)
        return key

    def _find(self, key: str) -> Upload:
        if key not in self._recordings:
            raise RecordingExpired("that recording is no longer kept: record or upload it again")
        self._recordings.move_to_end(key)
        return self._recordings[key]


def bit_rates(speech: Utterance, streams: StreamSpec, codec: SpeechCodec | None) -> dict[str, Any]:
    """The bit rates of an utterance, for a codec or, without one, at codes of a fixed length alone.

    Returns `fixed`, bit/s of each stream, rate * log2(codes), without continuous F0; `coded`, bit/s of each
    stream and their total, and `bytes` of the coded file, None without a codec; `pcm`; and whether the model
    has `continuous` pitch, which none of these count.
    """
    fixed = {"units": streams.sample_rate / streams.unit_hop * np.log2(streams.num_units)}
    if streams.num_f0_codes:
        fixed["f0"] = streams.sample_rate / streams.f0_code_hop * np.log2(streams.num_f0_codes)
    rates = {
        "fixed": {name: round(float(rate), 1) for name, rate in fixed.items()},
        "coded": None,
        "bytes": None,
        "pcm": PCM_BITS,
        "continuous": bool(streams.f0_channels),
    }
    if codec is not None:
        data = codec.pack(speech)
        summary = inspect(codec.model, codec.identity, data).summary
        coded = {name: rate for name, rate in summary["bps"].items() if rate}
        rates.update(coded={**coded, "total": summary["total_bps"]}, bytes=len(data))
    return rates
