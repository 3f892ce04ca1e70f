"""Spectral distances between two waveforms (T,) of one sample rate.

Samples are compared at the same time: the longer one's end is cut, up to `TOLERANCE_SECONDS`; only
the variant with dynamic time warping (DTW) takes any two lengths.
"""

import functools

import librosa
import numpy as np
import torch

from fairseq_resynth.evaluation.mel_cepstrum import WARPING, mel_cepstrum
from fairseq_resynth.modules.losses import LogMelSpectrogram, mel_l1

TOLERANCE_SECONDS = 0.2
STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window
MAGNITUDE_FLOOR = 1e-4  # -80 dB under a full-scale bin: deeper is rounding, not speech


def align_waveforms(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = 16000
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts two waveforms to the shorter one's length.

    Args:
        reference: (T,) samples.
        generated: (T',) samples.
        sample_rate: Hz of both.

    Raises:
        ValueError: one is empty, or they differ by more than 0.2 s.
    """
    lengths = len(reference), len(generated)
    if not min(lengths):
        raise ValueError(f"the waveforms have {lengths[0]} and {lengths[1]} samples: one is empty")
    if abs(lengths[0] - lengths[1]) > TOLERANCE_SECONDS * sample_rate:
        raise ValueError(
            f"reference and generated last {lengths[0] / sample_rate:.3f} s and "
            f"{lengths[1] / sample_rate:.3f} s, more than {TOLERANCE_SECONDS} s apart"
        )
    return reference[: min(lengths)], generated[: min(lengths)]


@functools.cache
def _log_mel(sample_rate: int) -> LogMelSpectrogram:
    return LogMelSpectrogram(sample_rate)


def mel_l1_distance(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = 16000
) -> float:
    """Mean absolute difference of HiFi-GAN's log-mel spectrograms, in nepers: the training loss /
    45.

    80 bands from 0 Hz to half the rate, n_fft 1024, hop 256, natural log clamped at 1e-5 (Kong et
    al., 2020). Both (T,), see `align_waveforms`.
    """
    pair = align_waveforms(reference, generated, sample_rate)
    mels = [
        _log_mel(sample_rate)(torch.from_numpy(np.array(wav, np.float32)[None, None]))
        for wav in pair
    ]
    return float(mel_l1(mels[0], mels[1]))


def mel_cepstral_distortion(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = 16000, dtw: bool = False
) -> float:
    """MCD in dB: 10 / ln 10 * mean over frames of sqrt(2 * sum over d >= 1 of (c_d - c'_d)^2).

    Kubichek (1993), over the frames of SPTK's mel-cepstrum with order 23 and alpha 0.42 at 16 kHz,
    windows of 1024 every 256. Loudness (c_0) is left out, silence is not.

    Args:
        reference: (T,) samples.
        generated: (T',) samples, T' within 0.2 s of T unless `dtw`.
        sample_rate: 8000, 16000, 22050 or 24000 Hz.
        dtw: pair frames by the cheapest monotonous path instead of by time, so that timing is free.

    Raises:
        ValueError: another rate, under 1024 samples, or lengths too far apart.
    """
    if sample_rate not in WARPING:
        raise ValueError(f"mel-cepstra are set up for {sorted(WARPING)} Hz, not {sample_rate}")
    if not dtw:
        reference, generated = align_waveforms(reference, generated, sample_rate)
    order, alpha = WARPING[sample_rate]
    first, second = (mel_cepstrum(wav, order, alpha)[:, 1:] for wav in (reference, generated))
    if dtw:
        _, path = librosa.sequence.dtw(first.T, second.T, metric="euclidean")
        first, second = first[path[:, 0]], second[path[:, 1]]
    distances = np.sqrt(2 * np.sum((first - second) ** 2, axis=1))
    return float(10 / np.log(10) * distances.mean())


def multi_resolution_stft(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = 16000
) -> dict[str, float]:
    """Spectral convergence and log-magnitude L1, each the mean over three resolutions.

    Yamamoto, Song and Kim, "Parallel WaveGAN" (ICASSP 2020), equations 3 to 6. Both (T,), see
    `align_waveforms`.

    Returns:
        `spectral_convergence`: ||S - S'|| / ||S||, NaN for a silent reference;
        `log_magnitude`: mean |ln S - ln S'| in nepers, floored at 1e-4.
    """
    pair = align_waveforms(reference, generated, sample_rate)
    rows = [_stft_distances(*pair, *resolution) for resolution in STFT_RESOLUTIONS]
    convergence, log_magnitude = np.mean(rows, axis=0)
    return {"spectral_convergence": float(convergence), "log_magnitude": float(log_magnitude)}


def _stft_distances(
    reference: np.ndarray, generated: np.ndarray, n_fft: int, hop: int, window: int
) -> tuple[float, float]:
    real, fake = (
        np.abs(librosa.stft(wav.astype(np.float32), n_fft=n_fft, hop_length=hop, win_length=window))
        for wav in (reference, generated)
    )
    energy = np.linalg.norm(real)
    convergence = np.linalg.norm(real - fake) / energy if energy > 0 else np.nan
    logs = [np.log(np.maximum(magnitude, MAGNITUDE_FLOOR)) for magnitude in (real, fake)]
    return convergence, np.abs(logs[0] - logs[1]).mean()
