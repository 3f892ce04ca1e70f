"""Speech to streams and back: a unit vocoder together with the encoders of its streams."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.data.pitch import representations
from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.encoders.content import ContentEncoder, VqvaeUnits
from fairseq_resynth.inference.bundle import Bundle, load_bundle, require_vocoder
from fairseq_resynth.inference.checkpoints import build_bundle
from fairseq_resynth.inference.decoder import UnitDecoder, decode_all
from fairseq_resynth.inference.voices import Speaker
from fairseq_resynth.modules.generators.inference import usable_device


class PitchStream:
    """Extracts F0 and turns it into the pitch stream of a model, with its F0 quantizer if it has one."""

    def __init__(self, streams: StreamSpec, f0_vqvae: representations.F0Encoder | None):
        self._streams, self._f0_vqvae = streams, f0_vqvae
        self.exists = streams.has_pitch
        self.statistics: SpeakerStatistics | None = None  # of F0 of its speakers, if they are known
        if streams.speaker_statistics:
            self.statistics = SpeakerStatistics.from_dict(streams.speaker_statistics)

    @functools.cached_property
    def representation(self) -> representations.F0Representation:
        """The conversion of F0 in Hz to the model's pitch stream; raises ValueError without its quantizer."""
        streams = self._streams
        return representations.make_representation(
            streams.f0_codes, self._f0_vqvae, streams.f0_channels
        )

    def extract(self, wav: np.ndarray) -> np.ndarray:
        """The (N,) F0 in Hz of (T,) samples, by the method that made the training data."""
        return extract_f0(wav, self._streams.f0_codes.get("f0_method", "yaapt"))

    def entry(self, f0: np.ndarray, speaker: str | None) -> F0Entry:
        """The F0 statistics of a known speaker, else of (N,) Hz, or of all speakers if no frame is voiced."""
        if isinstance(speaker, str) and self.statistics is not None:
            return self.statistics.entry(speaker)
        if f0.any():
            return SpeakerStatistics.from_frames([("", f0)]).overall
        return self.statistics.overall if self.statistics else {"f0_mean": 1.0, "f0_std": 1.0}

    def voice_entry(self, speaker: object) -> F0Entry:
        """The F0 statistics of a speaker by name or index, else of all; ValueError if the model has none."""
        if self.statistics is None:
            raise ValueError(
                "the bundle has no F0 statistics, because speakers.json did not exist in training"
            )
        names = self._streams.speakers
        if isinstance(speaker, int) and 0 <= speaker < len(names):
            speaker = names[speaker]
        known = isinstance(speaker, str) and speaker in self.statistics.speakers
        return self.statistics.entry(speaker if known else None)

    def encode(self, f0: np.ndarray, entry: F0Entry, num_units: int) -> dict[str, Any]:
        """Turns (n,) Hz at 200 Hz into {`f0_codes`: (F,)} or {`f0`: (C, N)}, as long as the units."""
        samples = num_units * self._streams.unit_hop
        f0 = np.pad(f0, (0, max(-(-samples // F0_HOP) - len(f0), 0)))
        values = self.representation.encode(f0, entry)
        if self._streams.f0_channels:
            return {"f0": values[:, : -(-samples // F0_HOP)]}
        return {"f0_codes": values[: -(-samples // self._streams.f0_code_hop)]}


class SpeechSystem:
    """A unit vocoder with the encoders of its streams. `encoder` makes content units; None stands for the
    VQ-VAE of the bundle, and without both only `decode` works. Raises ValueError if the bundle has no
    vocoder, or the encoder makes other units than it takes."""

    def __init__(
        self,
        bundle: Bundle,
        encoder: ContentEncoder | VqvaeUnits | None = None,
        device: str | torch.device = "cpu",
    ):
        require_vocoder(bundle)
        if encoder is None and bundle.content_vqvae is not None:
            encoder = VqvaeUnits(bundle.content_vqvae, device)
        if encoder is not None:
            found = (encoder.unit_hop, encoder.num_units)
            expected = (bundle.streams.unit_hop, bundle.streams.num_units)
            if found != expected:
                raise ValueError(
                    f"the content encoder makes {found[1]} units of {found[0]} samples, the model was "
                    f"trained on {expected[1]} of {expected[0]}: give the k-means that made its units."
                )
        self.bundle, self.encoder = bundle, encoder
        self.streams: StreamSpec = bundle.streams
        self.decoder = UnitDecoder(bundle.generator, bundle.streams, device)
        self.pitch = PitchStream(bundle.streams, bundle.f0_vqvae)
        self.statistics = self.pitch.statistics

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        f0_path: str | Path | None = None,
        kmeans: str | Path | None = None,
        content_checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        ema: bool = False,
    ) -> Self:
        """Loads checkpoints of fairseq; `path` is that of the unit vocoder.

        `encode` also needs that of the F0 quantizer for a model with pitch codes, the k-means of the units,
        and for any but logmel the weights of the content encoder. `ema` takes the averaged weights of
        --store-ema. Raises FileNotFoundError or ValueError if a file is missing or no such checkpoint, or
        they do not belong together.
        """
        return cls._load(build_bundle(path, f0_path, kmeans, ema), content_checkpoint, device)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        content_checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        decode_only: bool = False,
    ) -> Self:
        """Loads a folder, an archive (.tar.gz, .zip), an http(s) address or `owner/name` on Hugging Face.

        `content_checkpoint` holds the weights of the content encoder, which `encode` needs, not for logmel;
        `decode_only` leaves this encoder out. Raises FileNotFoundError or ValueError if the bundle or the
        weights are missing or do not fit.
        """
        return cls._load(load_bundle(folder), content_checkpoint, device, decode_only)

    def encode(
        self,
        wav: np.ndarray | str | Path,
        speaker: str | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Utterance:
        """Turns speech, (T,) float in [-1, 1] or a path to any audio file, into streams.

        `speaker` is who speaks, if the model knows the voice: its F0 statistics normalize the pitch, without
        one those of the utterance do. `sample_rate` is that of `wav` in Hz; all but 16 000 are resampled.
        Raises ValueError if `wav` is not mono, has NaN or is too short, the speaker is unknown, or the system
        has no content encoder.
        """
        wav = self.waveform(wav, sample_rate)
        units, pitch = self.units(wav), {}
        if self.pitch.exists:
            f0 = self.pitch.extract(wav)
            pitch = self.pitch.encode(f0, self.pitch.entry(f0, speaker), len(units))
        return Utterance(units, speaker=speaker, num_samples=len(wav), **pitch)

    def waveform(self, wav: np.ndarray | str | Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """The (T,) float32 samples at 16 kHz of an array or a file; arguments and errors as `encode`."""
        if isinstance(wav, str | Path):
            wav, sample_rate = load_any_audio(wav)
        wav = np.asarray(wav, dtype=np.float32)
        if wav.ndim != 1:
            raise ValueError(f"wav: found shape {wav.shape}, expected (T,), one channel.")
        if not np.isfinite(wav).all():
            raise ValueError("wav contains NaN or infinity.")
        return resample(wav, sample_rate)

    def units(self, wav: np.ndarray) -> np.ndarray:
        """The (U,) content units of (T,) samples at 16 kHz."""
        if self.encoder is None:
            raise ValueError(
                "the system has no content encoder: give the k-means of the units (kmeans=…)."
            )
        return self.encoder.encode(wav)

    def decode(
        self,
        units: np.ndarray,
        f0_codes: np.ndarray | None = None,
        speaker: Speaker | None = None,
        unit_lengths: Sequence[int] | None = None,
        f0: np.ndarray | None = None,
        **tokens: str | Sequence[str | None] | None,
    ) -> np.ndarray:
        """Turns (B, U) units and their pitch into (B, 1, T) speech; arguments as `UnitDecoder.decode`."""
        return self.decoder.decode(units, f0_codes, speaker, unit_lengths, f0, **tokens)

    def decode_all(
        self, utterances: Sequence[Utterance], batch_seconds: float = 60.0
    ) -> list[np.ndarray]:
        """Turns utterances into speech, (T,) float32 each, in batches as `decoder.decode_all`."""
        return decode_all(self.decoder, utterances, batch_seconds)

    def speak(
        self,
        units: Sequence[np.ndarray],
        speaker: str | None = None,
        rate: float = 1.0,
        **tokens: str,
    ) -> list[np.ndarray]:
        """Turns units without repeats, as from a language model, into speech with predicted durations.

        `units` are (U,) integers of each utterance, where runs of a unit count as one; a `rate` of 2 halves
        every duration; a speaker and named tokens are required if the model has several. Returns (T,) float32
        at 16 kHz for each utterance. Raises ValueError if the model has no duration predictor or needs pitch,
        or units are outside the table.
        """
        if self.pitch.exists:
            raise ValueError("the model needs pitch, and units without repeats come without it.")
        expanded = self.decoder.expand(units, rate, speaker=speaker)
        return self.decode_all([Utterance(row, speaker=speaker, tokens=tokens) for row in expanded])

    @classmethod
    def _load(
        cls,
        bundle: Bundle,
        content_checkpoint: str | Path | None,
        device: str | torch.device,
        decode_only: bool = False,
    ) -> Self:
        encoder = None
        if bundle.kmeans is not None and not decode_only:
            encoder = ContentEncoder.from_kmeans(
                bundle.kmeans, content_checkpoint, usable_device(device)
            )
        return cls(bundle, encoder, device)
