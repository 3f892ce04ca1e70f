"""Mel-cepstra as SPTK's `mcep` computes them, in NumPy: pysptk has no wheels and needs a compiler.

Follows Fukada, Tokuda, Kobayashi and Imai, "An adaptive algorithm for mel-cepstral analysis of
speech" (ICASSP 1992): the cepstrum that minimises the unbiased estimate of the log spectrum, found
by Newton's method. Tests hold it against pysptk.
"""

import functools

import numpy as np
from scipy.linalg import hankel, toeplitz

# order, alpha by sample rate: SPTK's recommendation
WARPING = {8000: (13, 0.31), 16000: (23, 0.42), 22050: (34, 0.45), 24000: (34, 0.46)}
FLOOR = 1e-6  # added to the periodogram: digital silence has a spectrum too
MAX_ITERATIONS = 30
TOLERANCE = 1e-3


@functools.cache
def frequency_transform(size_in: int, size_out: int, alpha: float) -> np.ndarray:
    """The matrix of SPTK's `freqt`: warps a cepstrum by a first-order all-pass.

    Oppenheim and Johnson (1972).

    Args:
        size_in: coefficients of the input, c0 included.
        size_out: coefficients of the output, c0 included.
        alpha: all-pass constant in (-1, 1).

    Returns:
        (size_out, size_in); warped = matrix @ cepstrum.
    """
    warped = np.zeros((size_out, size_in))
    # Horner's scheme over the input coefficients, run on all unit vectors at once.
    for index in range(size_in - 1, -1, -1):
        previous = warped.copy()
        warped[0] = alpha * previous[0]
        warped[0, index] += 1
        if size_out > 1:
            warped[1] = (1 - alpha**2) * previous[0] + alpha * previous[1]
        for row in range(2, size_out):
            warped[row] = previous[row - 1] + alpha * (previous[row] - warped[row - 1])
    return warped


def mel_cepstrum(
    wav: np.ndarray, order: int = 23, alpha: float = 0.42, n_fft: int = 1024, hop: int = 256
) -> np.ndarray:
    """Mel-cepstrum of every whole window.

    Args:
        wav: (T,) samples in [-1, 1], T >= n_fft.
        order: highest coefficient.
        alpha: warping, 0.42 imitates mel at 16 kHz.
        n_fft: samples of the Hamming window.
        hop: samples between windows.

    Returns:
        (M, order + 1) float64, c0 first; M = (T - n_fft) // hop + 1.

    Raises:
        ValueError: shorter than one window.
    """
    if len(wav) < n_fft:
        raise ValueError(f"{len(wav)} samples are too short for a mel-cepstrum: {n_fft} needed")
    frames = np.lib.stride_tricks.sliding_window_view(wav.astype(np.float64), n_fft)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hamming(n_fft))) ** 2 + FLOOR
    cepstrum = np.fft.irfft(np.log(power))[:, : n_fft // 2 + 1]
    cepstrum[:, [0, -1]] *= 0.5  # both ends of the even sequence count once
    result = cepstrum @ frequency_transform(n_fft // 2 + 1, order + 1, alpha).T
    rows = zip(result, power, strict=True)
    return np.stack([_newton(start, spectrum, alpha) for start, spectrum in rows])


def _newton(cepstrum: np.ndarray, power: np.ndarray, alpha: float) -> np.ndarray:
    """Minimises the UELS criterion from a starting point (order + 1,); power is (n_fft/2 + 1,)."""
    size, bins = len(cepstrum), len(power)
    unwarp = frequency_transform(size, bins, -alpha)
    warp = frequency_transform(2 * size - 1, bins, -alpha).T  # SPTK's `frqtr`
    powers = (-alpha) ** np.arange(size)
    last = cepstrum[0]
    for _ in range(MAX_ITERATIONS):
        log_envelope = np.fft.rfft(unwarp @ cepstrum, 2 * (bins - 1)).real
        residual = warp @ np.fft.irfft(power / np.exp(2 * log_envelope))[:bins]
        if abs(residual[0] - last) < TOLERANCE * abs(residual[0]):
            break
        last = residual[0]
        matrix = toeplitz(residual[:size]) + hankel(residual[:size], residual[size - 1 :])
        cepstrum = cepstrum + np.linalg.solve(matrix, residual[:size] - powers)
    return cepstrum
