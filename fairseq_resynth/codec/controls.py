"""Pitch and rate of decoded streams, changed before the generator speaks them."""

import re

import numpy as np
import torch

from fairseq_resynth.data.speakers import SpeakerStatistics
from fairseq_resynth.modules.f0_vqvae import F0Vqvae

VOICED = 0.15  # |normalised F0| below it is what the quantiser makes of unvoiced frames
SLOWEST, FASTEST = 0.25, 4.0


def change_rate(
    units: np.ndarray, f0_codes: np.ndarray | None, rate: float, span: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Speaks `rate` times as fast: every stream is sampled at its nearest frame.

    Args:
        units: (U,) int64.
        f0_codes: (F,) int64 or None.
        rate: 0.25 to 4; the length becomes round(U / rate).
        span: units an F0 code.

    Raises:
        ValueError: another rate.
    """
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError(f"--rate {rate}: expected {SLOWEST} to {FASTEST}")
    if rate == 1 or not len(units):
        return units, f0_codes
    count = max(1, round(len(units) / rate))
    picked = units[_nearest(count, len(units), rate)]
    if f0_codes is None:
        return picked, None
    codes = -(-count // span)
    return picked, f0_codes[_nearest(codes, len(f0_codes), rate)]


def _nearest(count: int, size: int, rate: float) -> np.ndarray:
    return np.minimum(((np.arange(count) + 0.5) * rate).astype(np.int64), size - 1)


def parse_pitch(text: str) -> tuple[str, float]:
    """Reads `shift=+3st`, `scale=1.2` or `flatten` into (`scale`, factor) or (`flatten`, 0).

    Raises:
        ValueError: something else, or beyond two octaves.
    """
    shift = re.fullmatch(r"(?:shift=)?([+-]?\d+(?:\.\d+)?)(?:st)?", text)
    scale = re.fullmatch(r"scale=(\d+(?:\.\d+)?)", text)
    if text == "flatten":
        return "flatten", 0.0
    factor = 2 ** (float(shift[1]) / 12) if shift else float(scale[1]) if scale else 0.0
    if not 0.25 <= factor <= 4:
        raise ValueError(
            f"--pitch {text!r}: expected shift=+3st, scale=1.2 or flatten, within two octaves"
        )
    return "scale", factor


@torch.inference_mode()
def change_pitch(
    f0_codes: np.ndarray,
    pitch: str,
    f0_vqvae: F0Vqvae,
    statistics: SpeakerStatistics,
    speaker: str | None,
) -> np.ndarray:
    """Changes the pitch in Hz and quantises it again.

    Args:
        f0_codes: (F,) int64.
        pitch: as `parse_pitch` reads it.
        f0_vqvae: the quantiser.
        statistics: F0 of the speakers.
        speaker: whose mean and deviation turn the normalised pitch into Hz; None: those of all.
    """
    kind, factor = parse_pitch(pitch)
    normalized = f0_vqvae.decode(torch.from_numpy(f0_codes)[None])[0, 0].numpy()
    voiced = np.abs(normalized) > VOICED
    hertz = statistics.denormalize(np.where(voiced, normalized, 0), speaker)
    if kind == "flatten":
        hertz = np.where(voiced, np.float32(hertz[voiced].mean() if voiced.any() else 0), 0)
    else:
        hertz = hertz * np.float32(factor)
    changed = statistics.normalize(hertz.astype(np.float32), speaker)
    return f0_vqvae.encode(torch.from_numpy(changed.astype(np.float32))[None, None])[0].numpy()
