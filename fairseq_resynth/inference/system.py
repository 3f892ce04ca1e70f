"""Speech to streams and back: a unit vocoder together with the encoders of its streams."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.encoders.content import ContentEncoder, VqvaeUnits
from fairseq_resynth.inference.bundle import Bundle, load_bundle, require_vocoder
from fairseq_resynth.inference.checkpoints import build_bundle
from fairseq_resynth.inference.chunks import decode_all
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.inference.pitch_stream import PitchStream
from fairseq_resynth.inference.voices import Speaker
from fairseq_resynth.modules.generators.inference import usable_device


class SpeechSystem:
    """A unit vocoder with the encoders of its streams.

    Raises ValueError if the bundle has no vocoder, or the encoder makes other units than the model takes.

    Args:
        bundle: the models.
        encoder: makes content units; None: the VQ-VAE of the bundle. Without both only `decode` works.
        device: where the generator computes.
    """

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
            _check_encoder(encoder, bundle.streams)
        self.bundle = bundle
        self.streams: StreamSpec = bundle.streams
        self.encoder = encoder
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
        """Loads checkpoints of fairseq.

        Args:
            path: checkpoint of the unit vocoder.
            f0_path: checkpoint of the F0 quantizer; needed by `encode` when the model has a pitch stream.
            kmeans: the units' k-means; needed by `encode`.
            content_checkpoint: weights of the content encoder; needed by `encode`, not for logmel.
            device: where to compute.
            ema: whether to use the averaged weights of --store-ema.

        Raises FileNotFoundError or ValueError if a file is missing or no such checkpoint, or they do not
        belong together.
        """
        bundle = build_bundle(path, f0_path, kmeans, ema)
        return cls(bundle, _encoder(bundle.kmeans, content_checkpoint, device), device)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        content_checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        decode_only: bool = False,
    ) -> Self:
        """Loads a bundle.

        Args:
            folder: of the bundle; an archive of it (.tar.gz, .zip); `owner/name` on the Hugging Face hub; or
                the http(s) address of a folder or archive.
            content_checkpoint: weights of the content encoder; needed by `encode`, not for logmel.
            device: where to compute.
            decode_only: whether to leave out the content encoder, so that its weights are not needed.

        Raises FileNotFoundError or ValueError if the bundle or the weights are missing or do not fit.
        """
        bundle = load_bundle(folder)
        kmeans = None if decode_only else bundle.kmeans
        return cls(bundle, _encoder(kmeans, content_checkpoint, device), device)

    def encode(
        self,
        wav: np.ndarray | str | Path,
        speaker: str | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Utterance:
        """Turns speech into streams.

        Args:
            wav: (T,) float in [-1, 1], or a path to any audio file.
            speaker: who speaks, if the model knows the voice. Its F0 statistics normalize the pitch; None:
                the mean and standard deviation of the utterance do.
            sample_rate: of `wav` in Hz; rates other than 16 000 are resampled.

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
        style: str | Sequence[str] | None = None,
    ) -> np.ndarray:
        """Turns (B, U) units and their pitch into (B, 1, T) speech; arguments as `UnitDecoder.decode`."""
        return self.decoder.decode(units, f0_codes, speaker, unit_lengths, f0, style)

    def decode_all(
        self, utterances: Sequence[Utterance], batch_seconds: float = 60.0
    ) -> list[np.ndarray]:
        """Turns utterances into speech, (T,) float32 each, in batches as `chunks.decode_all`."""
        return decode_all(self.decoder, utterances, batch_seconds)

    def speak(
        self,
        units: Sequence[np.ndarray],
        speaker: str | None = None,
        rate: float = 1.0,
        style: str | None = None,
    ) -> list[np.ndarray]:
        """Turns units without repeats, as from a language model, into speech with predicted durations.

        Args:
            units: (U,) integers of each utterance; runs of a unit count as one.
            speaker: required if the model has several.
            rate: of speaking; 2 halves every duration.
            style: required if the model has several.

        Returns (T,) float32 at 16 kHz for each utterance. Raises ValueError if the model has no duration
        predictor or needs pitch, or units are outside the table.
        """
        if self.pitch.exists:
            raise ValueError("the model needs pitch, and units without repeats come without it.")
        expanded = self.decoder.expand(units, rate, speaker=speaker)
        return self.decode_all([Utterance(row, speaker=speaker, style=style) for row in expanded])


def _encoder(
    kmeans: Path | None, checkpoint: str | Path | None, device: str | torch.device
) -> ContentEncoder | None:
    if kmeans is None:
        return None
    return ContentEncoder.from_kmeans(kmeans, checkpoint, usable_device(device))


def _check_encoder(encoder: ContentEncoder | VqvaeUnits, streams: StreamSpec) -> None:
    found = (encoder.unit_hop, encoder.num_units)
    expected = (streams.unit_hop, streams.num_units)
    if found != expected:
        raise ValueError(
            f"the content encoder makes {found[1]} units of {found[0]} samples, the model was trained on "
            f"{expected[1]} of {expected[0]}: give the k-means that made its units."
        )
