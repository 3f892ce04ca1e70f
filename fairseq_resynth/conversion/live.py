"""Conversion of speech while it is spoken: step by step, with a bounded delay and bounded memory.

Each step encodes a window of audio: the step itself, the look-back before it and the look-ahead after it. The
units and the pitch of the step are settled by that. Those of the look-ahead are provisional: they serve the
decoder as the context after the step, and the next window encodes them again. So encoder, pitch tracker and
decoder share one look-ahead, and the delay is one step plus that. The decoder continues its own context and
the phase of its pulses from step to step; nothing is cross-faded.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.conversion import prosody
from fairseq_resynth.conversion.convert import Controls, Target, check_controls, choose_voice
from fairseq_resynth.data.audio.pcm import StreamResampler
from fairseq_resynth.data.pitch.extraction import (
    SHORTEST,
    SILENCE_PEAK,
    extract_f0,
    num_frames,
    require_method,
)
from fairseq_resynth.data.pitch.statistics import F0Entry
from fairseq_resynth.inference.decoder import ChunkDecoder
from fairseq_resynth.inference.system import SpeechSystem

F0_METHOD = "swift"
F0_LOOK_BACK = 0.48  # seconds before a step of which the pitch tracker hears as well
# Voiced frames, 3 s, that the deviation of the target's F0 counts for in that of an unknown speaker.
PRIOR_FRAMES = 600
SILENT_SECONDS = 3.0  # of silence until a `LiveQueue` asks whether the microphone is on
REPEAT_SECONDS = 1.0  # between two warnings of falling behind


@dataclass(frozen=True)
class LiveWindow:
    """The audio of a step in seconds: the step itself, and what is heard after and before it. The converter
    rounds each up to what the model's streams divide."""

    step: float = 0.16
    look_ahead: float = 0.24
    look_back: float = 4.0

    def __post_init__(self) -> None:
        limits = {"step": (0.01, 2.0), "look_ahead": (0.02, 4.0), "look_back": (0.0, 20.0)}
        for name, (least, most) in limits.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(
                    f"{name.replace('_', '-')} is {value:g} s, expected {least:g} to {most:g} s"
                )


class LiveConverter:
    """Converts one stream of speech to another voice; how the stream is cut into pieces changes no sample.

    Args:
        system: the model with its content encoder.
        target: the voice, as for `conversion.convert.convert`.
        source: who speaks, if the model knows the voice. The F0 of anybody else is measured from the start of
            the stream, so that the pitch is settled after the first seconds of speech.
        controls: pitch (shift, scale or flatten) and named tokens; a change of rhythm needs whole utterances.
        window: of each step.
        f0_method: of `extract_f0`.
        output_rate: in Hz, of the result.

    Attributes:
        step: samples at 16 kHz that each step converts.
        delay: seconds from a sample to its result, without the time to compute; resampling adds 20 ms or less
            between 44.1 kHz and 16 kHz.

    Raises ValueError for a system without a content encoder, a control that needs the whole utterance, or a
    look-ahead that is too short for the content encoder; and what `convert` raises for a voice or control.
    """

    def __init__(
        self,
        system: SpeechSystem,
        target: Target | None = None,
        source: str | None = None,
        controls: Controls | None = None,
        window: LiveWindow | None = None,
        f0_method: str = F0_METHOD,
        output_rate: int = SAMPLE_RATE,
    ):
        controls, window = controls or Controls(), window or LiveWindow()
        check_controls(system, controls)
        _check_live(controls)
        if system.encoder is None:
            raise ValueError(
                "the bundle has no content encoder: export it with --kmeans FILE for live conversion."
            )
        self._system, self._controls, self._f0_method = system, controls, f0_method
        if system.pitch.exists:
            require_method(f0_method)
        self.voice = choose_voice(system, target, source)
        statistics = system.statistics
        self._entry = self.voice.entry or (statistics and statistics.overall)
        self._source = statistics.entry(source) if statistics and source else None
        self._plan(window)
        self._output_rate = output_rate
        self._restart()

    def _plan(self, window: LiveWindow) -> None:
        """Rounds the window up to what the streams divide; ValueError for a look-ahead that is too short."""
        streams, encoder = self._system.streams, self._system.encoder
        pitch_hop = streams.f0_code_hop if streams.num_f0_codes else F0_HOP
        unit_grid = math.lcm(streams.unit_hop, F0_HOP)
        grid = math.lcm(unit_grid, pitch_hop)

        def rounded(seconds: float, multiple: int) -> int:
            return math.ceil(round(seconds * SAMPLE_RATE / multiple, 6)) * multiple

        self.step, self._back = rounded(window.step, grid), rounded(window.look_back, grid)
        self._ahead = rounded(window.look_ahead, unit_grid)
        self.delay = (self.step + self._ahead) / SAMPLE_RATE
        # One unit after the step is the least that the decoder needs.
        frames = getattr(encoder, "encoder", None)
        heard = self.step + self._ahead
        found = frames.num_frames(heard) if frames else heard // streams.unit_hop
        if found <= self.step // streams.unit_hop:
            raise ValueError(
                f"look-ahead is {self._ahead / SAMPLE_RATE:g} s, in which the content encoder has no unit "
                f"yet: give {encoder.min_samples / SAMPLE_RATE:g} s or more"
            )

    def _restart(self) -> None:
        streams = self._system.streams
        speaker = self.voice.speaker if streams.has_speaker else None
        self._chunks = ChunkDecoder(self._system.decoder, speaker, tokens=self._controls.tokens)
        self._input, self._output = StreamResampler(), StreamResampler(self._output_rate)
        self._held = np.zeros(0, np.float32)  # the look-back, then what is not converted yet
        self._before = 0  # samples of the look-back that are held
        self._f0 = np.zeros(0, np.float32)  # Hz, the look-back's
        self._moments = np.zeros(3)  # of the source's voiced frames: number, sum and sum of squares

    def push(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Takes (n,) samples in [-1, 1] and returns the (m,) float32 samples that are finished.

        Another `sample_rate` than before is resampled from there on. Raises ValueError, with nothing taken,
        if the samples are not of one dimension or not finite, or the rate cannot be resampled.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise ValueError(
                f"the samples have shape {samples.shape}, expected (n,) finite numbers"
            )
        self._held = np.append(self._held, self._input.push(samples, sample_rate))
        return self._output.push(self._convert_held())

    def flush(self) -> np.ndarray:
        """Ends the stream: returns the (m,) samples that remain, so that the result is as long as the input.
        The next `push` begins another stream."""
        self._held = np.append(self._held, self._input.flush())
        left = len(self._held) - self._before
        self._held = np.pad(self._held, (0, -left % self.step + self._ahead))
        samples = self._output.push(self._convert_held()[:left])
        samples = np.append(samples, self._output.flush())
        self._restart()
        return samples

    def _convert_held(self) -> np.ndarray:
        pieces = [np.zeros(0, np.float32)]
        while len(self._held) >= self._before + self.step + self._ahead:
            pieces.append(self._convert_step(self._held[: self._before + self.step + self._ahead]))
            self._f0 = self._f0[-(self._back // F0_HOP) or len(self._f0) :]
            drop = max(self._before + self.step - self._back, 0)
            self._before += self.step - drop
            self._held = self._held[drop:]
        return np.concatenate(pieces)

    def _convert_step(self, wav: np.ndarray) -> np.ndarray:
        """The samples of the step in a window (look-back, step, look-ahead)."""
        streams = self._system.streams
        units, pitch = self._system.units(wav), {}
        if self._system.pitch.exists:
            hertz = self._target_f0(wav)
            pitch = self._system.pitch.encode(hertz, self._entry, len(units))
        if "f0_codes" in pitch:
            pitch["f0_codes"] = pitch["f0_codes"][self._before // streams.f0_code_hop :]
        if "f0" in pitch:
            pitch["f0"] = pitch["f0"][:, self._before // F0_HOP :]
        settled = self.step // streams.unit_hop
        return self._chunks.push_settled(
            settled, units[self._before // streams.unit_hop :], **pitch
        )

    def _target_f0(self, wav: np.ndarray) -> np.ndarray:
        """The (N,) F0 in Hz of a window in the target voice."""
        first = max(self._before - round(F0_LOOK_BACK * SAMPLE_RATE), 0) // F0_HOP * F0_HOP
        heard = wav[first:]
        f0 = np.zeros(num_frames(len(heard)), np.float32)
        if len(heard) >= SHORTEST:
            f0 = extract_f0(heard, self._f0_method)
        f0 = f0[(self._before - first) // F0_HOP :]
        settled = f0[: self.step // F0_HOP]
        voiced = settled[settled > 0].astype(np.float64)
        self._moments += len(voiced), voiced.sum(), np.square(voiced).sum()
        window = np.append(self._f0, f0)
        self._f0 = np.append(self._f0, settled)
        pitch = self._controls.pitch
        if self._entry is None:
            self._entry = {"f0_mean": 1.0, "f0_std": 1.0}
        if pitch == "flatten":
            return np.where(window > 0, np.float32(self._entry["f0_mean"]), np.float32(0))
        return prosody.apply_pitch(
            prosody.convert_f0(window, self._source_entry(), self._entry), pitch
        )

    def _source_entry(self) -> F0Entry:
        """The F0 statistics of who speaks: known, or measured on what was said so far."""
        count, total, squares = self._moments
        if self._source is not None or not count:
            return self._source or self._entry
        mean = total / count
        # The deviation of a few frames says little: at first it is in proportion to the target's.
        prior = mean * self._entry["f0_std"] / self._entry["f0_mean"]
        variance = squares / count - mean**2
        std = math.sqrt((count * variance + PRIOR_FRAMES * prior**2) / (count + PRIOR_FRAMES))
        return {"f0_mean": mean, "f0_std": std}


def _check_live(controls: Controls) -> None:
    """Raises ValueError if a control needs the whole utterance."""
    refused = {
        "--rate": controls.rate != 1,
        "--durations": controls.durations or controls.duration_speaker,
        f"--pitch {controls.pitch}": (controls.pitch or "").startswith("from="),
    }
    for option, given in refused.items():
        if given:
            raise ValueError(f"{option} needs the whole utterance, a live stream has none")


class LiveQueue:
    """Runs a converter in its own thread, between callbacks that give and take audio at one sample rate.

    No sample is dropped. If the computer is too slow, the audio waits and the delay grows, and `warn` gets a
    sentence, at most one per second. `warn` is called from the thread.
    """

    def __init__(self, converter: LiveConverter, sample_rate: int, warn: Callable[[str], None]):
        self._converter, self._rate, self._warn = converter, sample_rate, warn
        self._given: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._ready, self._lock = np.zeros(0, np.float32), threading.Lock()
        self._put = self._done = self._quiet = 0  # samples that came, were converted, are silent
        self._warned, self._closing = -math.inf, False
        self.error: Exception | None = None  # that ended the conversion
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> float:
        """Seconds of audio that wait to be converted."""
        return (self._put - self._done) / self._rate

    @property
    def seconds(self) -> float:
        """Seconds of audio that were converted."""
        return self._done / self._rate

    def put(self, samples: np.ndarray) -> None:
        """Takes (n,) float32, without waiting."""
        self._put += len(samples)
        self._given.put(samples)

    def take(self, count: int) -> np.ndarray:
        """(count,) float32 of the result, with zeros for what is not ready yet."""
        with self._lock:
            found, self._ready = self._ready[:count], self._ready[count:]
        return np.pad(found, (0, count - len(found)))

    def close(self) -> None:
        """Ends the thread after the piece that it is converting. Raises the error that ended the conversion
        before, if one did."""
        self._closing = True
        self._given.put(np.zeros(0, np.float32))
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._closing:
                samples = self._given.get()
                result = self._converter.push(samples, self._rate)
                with self._lock:
                    self._ready = np.append(self._ready, result)
                self._done += len(samples)
                self._report(samples)
        except Exception as error:  # `close` raises it in the thread of the caller
            self.error = error

    def _report(self, samples: np.ndarray) -> None:
        loud = bool(len(samples)) and np.abs(samples).max() >= SILENCE_PEAK
        quiet_before = self._quiet / self._rate
        self._quiet = 0 if loud else self._quiet + len(samples)
        if quiet_before < SILENT_SECONDS <= self._quiet / self._rate:
            self._warn(f"the input is silent for {SILENT_SECONDS:g} s: is the microphone on?")
        late, now = self.waiting, time.monotonic()
        step = self._converter.step / SAMPLE_RATE
        if late > 2 * step and now - self._warned >= REPEAT_SECONDS:
            self._warned = now
            self._warn(f"the conversion falls behind: {late:.1f} s of audio wait")
