"""Spectral distances between two waveforms (T,) of the same sample rate.

Waveforms are compared sample by sample: the longer one is cut to the shorter one's length if they differ by
up to `TOLERANCE_SECONDS`. The variant with dynamic time warping (DTW) takes any two lengths.
"""

import functools
from collections.abc import Iterator

import numpy as np
import torch

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.measures.alignment import warping_path
from fairseq_resynth.modules.losses import LogMelSpectrogram

TOLERANCE_SECONDS = 0.2
STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window
MAGNITUDE_FLOOR = 1e-4  # -80 dB of a full-scale bin; anything lower is rounding noise
# sample rate: (order, alpha) of the mel-cepstrum, as SPTK recommends
WARPING = {8000: (13, 0.31), 16000: (23, 0.42), 22050: (34, 0.45), 24000: (34, 0.46)}
PERIODOGRAM_FLOOR = 1e-6  # added, so that digital silence has a logarithm
BLOCK_FRAMES = 256  # of spectra and mel-cepstra that are in memory together: an hour has a million
NEWTON_ITERATIONS, NEWTON_TOLERANCE = 30, 1e-3

_log_mel = functools.cache(LogMelSpectrogram)


def align_waveforms(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts two waveforms to the shorter one's length. Raises ValueError if one is empty, or if
    they differ by more than 0.2 s."""
    lengths = len(reference), len(generated)
    if not min(lengths):
        raise ValueError(f"the waveforms have {lengths[0]} and {lengths[1]} samples: one is empty")
    if abs(lengths[0] - lengths[1]) > TOLERANCE_SECONDS * sample_rate:
        raise ValueError(
            f"reference and generated last {lengths[0] / sample_rate:.3f} s and "
            f"{lengths[1] / sample_rate:.3f} s, more than {TOLERANCE_SECONDS} s apart"
        )
    return reference[: min(lengths)], generated[: min(lengths)]


def mel_l1_distance(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> float:
    """Mean absolute difference of HiFi-GAN's log-mel spectrograms, in nepers: the training loss / 45. 80
    bands up to half the rate, n_fft 1024, hop 256, natural log clamped at 1e-5 (Kong et al., 2020)."""
    pair = align_waveforms(reference, generated, sample_rate)
    total = count = 0.0
    for real, fake in zip(*(_log_mels(wav, _log_mel(sample_rate)) for wav in pair), strict=True):
        total += np.abs(real - fake).sum(dtype=np.float64)
        count += real.size
    return float(total / count)


def _log_mels(wav: np.ndarray, log_mel: LogMelSpectrogram) -> Iterator[np.ndarray]:
    """The log-mel spectrogram of (T,) samples in blocks of frames, (bands, frames) each."""
    frames, hop = max(1, len(wav) // log_mel.hop), log_mel.hop
    context = -(-log_mel.n_fft // hop)  # frames that see the end of a piece, where it is reflected
    for start in range(0, frames, BLOCK_FRAMES):
        first, stop = max(0, start - context), start + BLOCK_FRAMES
        piece = wav[first * hop : (stop + context) * hop if stop < frames else None]
        mel = log_mel(torch.from_numpy(np.array(piece, np.float32)[None, None]))[0].numpy()
        yield mel[:, start - first : min(stop, frames) - first]


def mel_cepstral_distortion(
    reference: np.ndarray,
    generated: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    dtw: bool = False,
    loudness: bool = False,
) -> float:
    """MCD in dB: 10 / ln 10 * mean over frames of sqrt(2 * sum over d >= 1 of (c_d - c'_d)^2).

    Kubichek (1993), over the frames of SPTK's mel-cepstrum of order 23 and alpha 0.42 at 16 kHz, with
    windows of 1024 samples every 256. The loudness c_0 is left out unless `loudness` is set, which with
    `dtw` is the MCD of ESPnet's evaluate_mcd.py; silent frames are included. `dtw` pairs frames along the
    cheapest monotonic path instead of by time, so that timing does not count. Raises
    ValueError for rates that are not in `WARPING`, fewer than 1024 samples, or lengths too far apart.
    """
    if sample_rate not in WARPING:
        raise ValueError(f"mel-cepstra are set up for {sorted(WARPING)} Hz, not {sample_rate}")
    if not dtw:
        reference, generated = align_waveforms(reference, generated, sample_rate)
    order, alpha = WARPING[sample_rate]
    first, second = (mel_cepstrum(wav, order, alpha) for wav in (reference, generated))
    return cepstral_distance(first, second, dtw, loudness)


def cepstral_distance(
    first: np.ndarray, second: np.ndarray, dtw: bool = False, loudness: bool = False
) -> float:
    """`mel_cepstral_distortion` of two mel-cepstra, (M, D) each; without `dtw`, as far as the shorter one.
    Raises TooLongError if they are too long for `dtw`."""
    if not loudness:
        first, second = first[:, 1:], second[:, 1:]
    if dtw:
        frames, others = first, second

        def cost(row: np.ndarray, column: np.ndarray) -> np.ndarray:
            difference = frames[row] - others[column]
            return np.sqrt(np.einsum("ij,ij->i", difference, difference))

        path = warping_path(cost, len(frames), len(others))
        first, second = frames[path[:, 0]], others[path[:, 1]]
    count = min(len(first), len(second))
    distances = np.sqrt(2 * np.sum((first[:count] - second[:count]) ** 2, axis=1))
    return float(10 / np.log(10) * distances.mean())


def multi_resolution_stft(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> dict[str, float]:
    """Spectral convergence and log-magnitude L1, each the mean over three resolutions.

    `spectral_convergence` is ||S - S'|| / ||S||, NaN for a silent reference; `log_magnitude` is mean |ln S
    - ln S'| in nepers, floored at 1e-4. Yamamoto, Song and Kim, "Parallel WaveGAN" (ICASSP 2020), equations
    3 to 6.
    """
    pair = align_waveforms(reference, generated, sample_rate)
    rows = []
    for sizes in STFT_RESOLUTIONS:
        energy = error = logs = count = 0.0
        for real, fake in zip(*(_magnitudes(wav, *sizes) for wav in pair), strict=True):
            energy += np.square(real, dtype=np.float64).sum()
            error += np.square(real - fake, dtype=np.float64).sum()
            floored = (np.log(np.maximum(each, MAGNITUDE_FLOOR)) for each in (real, fake))
            logs += np.abs(np.subtract(*floored)).sum(dtype=np.float64)
            count += real.size
        convergence = np.sqrt(error / energy) if energy > 0 else np.nan
        rows.append((convergence, logs / count))
    convergence, log_magnitude = np.mean(rows, axis=0)
    return {"spectral_convergence": float(convergence), "log_magnitude": float(log_magnitude)}


def _magnitudes(wav: np.ndarray, n_fft: int, hop: int, window: int) -> Iterator[np.ndarray]:
    """The magnitudes of (T,) samples in blocks of frames, (bins, frames) each."""
    padded = torch.from_numpy(np.pad(wav.astype(np.float32), n_fft // 2))
    frames, hann = len(wav) // hop + 1, torch.hann_window(window)
    for start in range(0, frames, BLOCK_FRAMES):
        last = min(start + BLOCK_FRAMES, frames) - 1
        piece = padded[start * hop : last * hop + n_fft]
        spectrum = torch.stft(piece, n_fft, hop, window, hann, center=False, return_complex=True)
        yield spectrum.abs().numpy()


@functools.cache
def frequency_transform(size_in: int, size_out: int, alpha: float) -> np.ndarray:
    """The matrix of SPTK's `freqt`, (size_out, size_in), which warps the frequency axis of a cepstrum with
    c0 by a first-order all-pass of constant alpha in (-1, 1) (Oppenheim and Johnson, 1972)."""
    from scipy.signal import lfilter  # takes a second, and only mel-cepstra need it

    columns = [np.eye(size_out)[0]]  # column n is the impulse response of n all-passes in series
    for _ in range(size_in - 1):
        columns.append(lfilter([alpha, 1], [1, alpha], columns[-1]))
    return np.stack(columns, axis=1)


def mel_cepstrum(
    wav: np.ndarray, order: int = 23, alpha: float = 0.42, n_fft: int = 1024, hop: int = 256
) -> np.ndarray:
    """Mel-cepstrum of every whole window, as SPTK's `mcep` computes it: (M, order + 1) float64, c0 first.
    `wav` is (T,) samples in [-1, 1]; M = (T - n_fft) // hop + 1. An alpha of 0.42 approximates the mel
    scale at 16 kHz. Raises ValueError for fewer samples than the Hamming window's `n_fft`."""
    if len(wav) < n_fft:
        raise ValueError(f"{len(wav)} samples are too short for a mel-cepstrum: {n_fft} needed")
    frames = np.lib.stride_tricks.sliding_window_view(wav, n_fft)[::hop]
    transform = frequency_transform(n_fft // 2 + 1, order + 1, alpha).T
    result = np.zeros((len(frames), order + 1))
    for start in range(0, len(frames), BLOCK_FRAMES):
        windows = frames[start : start + BLOCK_FRAMES] * np.hamming(n_fft)
        power = np.abs(np.fft.rfft(windows)) ** 2 + PERIODOGRAM_FLOOR
        cepstrum = np.fft.irfft(np.log(power))[:, : n_fft // 2 + 1]
        cepstrum[:, [0, -1]] *= 0.5  # both ends of the even sequence count once
        rows = zip(cepstrum @ transform, power, strict=True)
        result[start : start + BLOCK_FRAMES] = [_newton(*row, alpha) for row in rows]
    return result


def _newton(cepstrum: np.ndarray, power: np.ndarray, alpha: float) -> np.ndarray:
    """Minimizes the criterion of unbiased log-spectrum estimation by Newton's method."""
    size, bins = len(cepstrum), len(power)
    unwarp = frequency_transform(size, bins, -alpha)
    warp = frequency_transform(2 * size - 1, bins, -alpha).T  # SPTK's `frqtr`
    powers = (-alpha) ** np.arange(size)
    order = np.arange(size)
    sums, differences = np.add.outer(order, order), np.subtract.outer(order, order)
    last = cepstrum[0]
    for _ in range(NEWTON_ITERATIONS):
        log_envelope = np.fft.rfft(unwarp @ cepstrum, 2 * (bins - 1)).real
        residual = warp @ np.fft.irfft(power / np.exp(2 * log_envelope))[:bins]
        if abs(residual[0] - last) < NEWTON_TOLERANCE * abs(residual[0]):
            break
        last = residual[0]
        matrix = residual[np.abs(differences)] + residual[sums]  # Toeplitz and Hankel
        cepstrum = cepstrum + np.linalg.solve(matrix, residual[:size] - powers)
    return cepstrum
