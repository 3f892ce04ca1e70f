"""Speech to streams and back, in Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.encoders.content import ContentEncoder, VqvaeUnits
from fairseq_resynth.inference.bundle import Bundle, build_bundle, load_bundle
from fairseq_resynth.inference.chunks import decode_all
from fairseq_resynth.inference.decoder import Speaker, UnitDecoder
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.inference.pitch import PitchStream
from fairseq_resynth.modules.generators.inference import usable_device


class SpeechSystem:
    """A unit vocoder with what makes its streams.

    Args:
        bundle: the models.
        encoder: makes content units; None: the bundle's own VQ-VAE, without which only `decode` works.
        device: where the generator computes.
    """

    def __init__(
        self,
        bundle: Bundle,
        encoder: ContentEncoder | VqvaeUnits | None = None,
        device: str | torch.device = "cpu",
    ):
        if bundle.generator is None:
            raise ValueError(
                "the bundle is an F0 quantiser alone; a unit vocoder is needed to speak."
            )
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
        """Takes fairseq's checkpoints.

        Args:
            path: of the unit vocoder.
            f0_path: of the F0 quantiser; needed by `encode` when the model has a pitch stream.
            kmeans: the units' k-means; needed by `encode`.
            content_checkpoint: weights of the content encoder; needed by `encode`, not for logmel.
            device: where to compute.
            ema: takes the averaged weights of --store-ema.

        Raises:
            FileNotFoundError, ValueError: a file is missing, no such checkpoint, or they do not belong
                together.
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
        """Takes a bundle; see `from_checkpoint` for the other arguments.

        Args:
            folder: where it lies; or `owner/name` on the Hugging Face hub; or the address of a folder, or
                of an archive of it (.tar.gz, .zip).
            content_checkpoint: weights of the content encoder.
            device: where to compute.
            decode_only: without the content encoder, whose weights are not needed then.
        """
        bundle = load_bundle(find_bundle(folder))
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
            speaker: who speaks, if the model knows the voice: its F0 statistics normalise the pitch.
                None: the utterance's own mean and deviation do.
            sample_rate: of `wav` in Hz; other rates than 16 000 are resampled.

        Raises:
            ValueError: not mono, NaN, too short; an unknown speaker; an encoder is missing.
        """
        wav = self.waveform(wav, sample_rate)
        units, pitch = self.units(wav), {}
        if self.pitch.exists:
            f0 = self.pitch.extract(wav)
            pitch = self.pitch.encode(f0, self.pitch.entry(f0, speaker), len(units))
        return Utterance(units, speaker=speaker, num_samples=len(wav), **pitch)

    def waveform(self, wav: np.ndarray | str | Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Returns (T,) float32 at 16 kHz of an array or a file; see `encode`."""
        return _waveform(wav, sample_rate)

    def units(self, wav: np.ndarray) -> np.ndarray:
        """Returns the (U,) content units of (T,) samples at 16 kHz."""
        if self.encoder is None:
            raise ValueError("to encode, give the k-means of the units (kmeans=…).")
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
        """Turns streams into speech, (B, U) and (B, F) to (B, 1, T); see `UnitDecoder.decode`."""
        return self.decoder.decode(units, f0_codes, speaker, unit_lengths, f0, style)

    def decode_all(
        self, utterances: Sequence[Utterance], batch_seconds: float = 60.0
    ) -> list[np.ndarray]:
        """Turns utterances into speech, (T,) float32 each, in batches; see `chunks.decode_all`."""
        return decode_all(self.decoder, utterances, batch_seconds)

    def speak(
        self,
        units: Sequence[np.ndarray],
        speaker: str | None = None,
        rate: float = 1.0,
        style: str | None = None,
    ) -> list[np.ndarray]:
        """Speaks units without repeats, as a language model gives them, for as long as predicted.

        Args:
            units: (U,) integers of each utterance; runs of a unit count as one.
            speaker: the voice; needed when the model has several.
            rate: of speaking; 2 halves every duration.
            style: needed when the model has several.

        Returns:
            (T,) float32 at 16 kHz for each utterance.

        Raises:
            ValueError: the model has no duration predictor, or needs pitch; units outside the table.
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
    found, expected = (
        (encoder.unit_hop, encoder.num_units),
        (streams.unit_hop, streams.num_units),
    )
    if found != expected:
        raise ValueError(
            f"the content encoder makes {found[1]} units of {found[0]} samples, the model was trained on "
            f"{expected[1]} of {expected[0]}: give the k-means that made its units."
        )


def _waveform(wav: np.ndarray | str | Path, sample_rate: int) -> np.ndarray:
    if isinstance(wav, str | Path):
        wav, sample_rate = load_any_audio(wav)
    wav = np.asarray(wav, dtype=np.float32)
    if wav.ndim != 1:
        raise ValueError(f"wav: found shape {wav.shape}, expected (T,), one channel.")
    if not np.isfinite(wav).all():
        raise ValueError("wav: it has NaN or infinity in it.")
    return resample(wav, sample_rate)
