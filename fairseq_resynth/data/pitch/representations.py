"""Representations of F0 for a generator: codes or channels of numbers, and back to Hz.

In the paper's representation, a z-score of Hz with unvoiced frames at 0, a voiced frame at the mean looks
unvoiced. The representations of log-F0 keep the voicing separate.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.pitch.statistics import STD_FLOOR, F0Entry, SpeakerStatistics
from fairseq_resynth.data.storage.checkpoints import weights_hash

VOICED = 0.15  # |z-score| of a voiced frame; the paper's quantizer decodes unvoiced frames to smaller ones
LOG_STD_FLOOR = 0.01  # a sixth of a semitone
MOST_VALUES = 2**23  # frames that quantiles are fitted on; of more, every second one, or fourth
REPRESENTATIONS = ("vqvae", "log_vqvae", "quantile", "continuous", "zscore")


class F0Encoder(Protocol):
    """The interface of `modules.quantizers.F0Vqvae` that this module needs. Encodes (B, C, N)
    normalized F0 to (B, N / stride) codes, and (B, F) codes to (B, C, F * stride)."""

    num_codes: int
    stride: int

    def encode(self, f0: Tensor) -> Tensor: ...

    def decode(self, codes: Tensor) -> Tensor: ...


class F0Representation(Protocol):
    """F0 of a voice with known statistics, (N,) float32 Hz with unvoiced frames at 0, as (F,) int64 codes or
    as (C, N) float32 channels."""

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray: ...

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray: ...


def describe(f0_vqvae: Any, checkpoint: str | Path) -> dict[str, Any]:
    """The description of an F0 VQ-VAE in `f0_codes.json`."""
    description = {
        "checkpoint": Path(checkpoint).name,
        "vqvae_hash": weights_hash(f0_vqvae),
        "num_codes": f0_vqvae.num_codes,
        "f0_code_hop": f0_vqvae.stride * F0_HOP,
        "normalize": "speaker_zscore",
    }
    if getattr(f0_vqvae, "channels", 1) == 2:
        description |= {"representation": "log_vqvae", "normalize": "speaker_log_zscore"}
    return description


def _log_pair(entry: F0Entry) -> tuple[float, float]:
    """Mean and standard deviation of log-F0."""
    if "log_f0_mean" in entry:
        return entry["log_f0_mean"], max(entry["log_f0_std"], LOG_STD_FLOOR)
    # Older statistics, and the original's, are of Hz alone: a log-normal distribution that has them.
    mean, std = entry["f0_mean"], max(entry["f0_std"], STD_FLOOR)
    variance = np.log1p((std / mean) ** 2)
    return float(np.log(mean) - variance / 2), max(float(np.sqrt(variance)), LOG_STD_FLOOR)


def normalize_log(f0: np.ndarray, entry: F0Entry) -> np.ndarray:
    """Log-F0 z-scored by the statistics of a voice, (N,) float32, interpolated over unvoiced frames."""
    voiced = np.flatnonzero(f0 > 0)
    if not len(voiced):
        return np.zeros(len(f0), np.float32)
    mean, std = _log_pair(entry)
    values = (np.log(np.asarray(f0, np.float64)[voiced]) - mean) / std
    return np.interp(np.arange(len(f0)), voiced, values).astype(np.float32)


class ZscoreF0:
    """F0 z-scored by speaker, unvoiced frames at 0: (1, N), as code HiFi-GANs take continuous F0."""

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        return SpeakerStatistics({}, entry).normalize(f0, None)[None]

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        return SpeakerStatistics({}, entry).denormalize(values[0], None)


class ContinuousF0:
    """Log-F0 z-scored by speaker, interpolated over unvoiced frames, and a voicing flag: (2, N) at 200 Hz."""

    @staticmethod
    def describe() -> dict[str, Any]:
        """Its description in `f0_codes.json`."""
        return {
            "representation": "continuous",
            "num_codes": 0,
            "f0_channels": 2,
            "normalize": "speaker_log_zscore",
        }

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        voicing = (np.asarray(f0) > 0).astype(np.float32)
        return np.stack([normalize_log(np.asarray(f0), entry), voicing])

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """Maps (2, N) to (N,) Hz; frames with a voicing of 0.5 or more are voiced."""
        mean, std = _log_pair(entry)
        hertz = np.exp(values[0].astype(np.float64) * std + mean)
        return np.where(values[1] >= 0.5, hertz, 0).astype(np.float32)


class VqvaeF0:
    """The paper's: codes of a VQ-VAE over F0 z-scored by speaker (Polyak et al., 2021, section 2.1)."""

    def __init__(self, f0_vqvae: F0Encoder):
        self.f0_vqvae = f0_vqvae

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        return self._encoded(ZscoreF0().encode(f0, entry))

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """Maps (F,) codes to Hz; frames near the mean become unvoiced, a flaw of this representation."""
        normalized = self._decoded(values)
        return ZscoreF0().decode(np.where(np.abs(normalized) > VOICED, normalized, 0), entry)

    @torch.inference_mode()
    def _encoded(self, f0: np.ndarray) -> np.ndarray:
        """The (ceil(N / stride),) codes of (C, N); the missing frames of the last one are unvoiced."""
        # Each utterance alone: in a batch with a longer one the convolutions would see padding after its end.
        padded = np.pad(f0, ((0, 0), (0, -f0.shape[1] % self.f0_vqvae.stride)))
        return self.f0_vqvae.encode(torch.from_numpy(padded)[None])[0].numpy()

    @torch.inference_mode()
    def _decoded(self, codes: np.ndarray) -> np.ndarray:
        return self.f0_vqvae.decode(torch.from_numpy(codes)[None])[0].numpy()


class LogVqvaeF0(VqvaeF0):
    """Codes of a VQ-VAE over `ContinuousF0`, trained with --f0-input log_voicing."""

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        return self._encoded(ContinuousF0().encode(f0, entry))

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        level, logit = self._decoded(values)
        return ContinuousF0().decode(np.stack([level, logit > 0]), entry)


class QuantileF0:
    """Quantile bins of log-F0 normalized by speaker (Kharitonov et al., 2022, pGSLM): (bins,) `centers` and
    (bins - 1,) ascending `edges`. Code 0 is unvoiced; a code of `hop` samples is voiced if at least half of
    its frames are, and stands for their median."""

    def __init__(self, edges: Iterable[float], centers: Iterable[float], hop: int):
        self.edges, self.centers = np.array(list(edges)), np.array(list(centers))
        self.hop = hop
        if len(self.edges) + 1 != len(self.centers) or not (np.diff(self.edges) > 0).all():
            raise ValueError("the F0 bins' edges must ascend, one fewer than there are centers")

    @classmethod
    def fit(cls, rows: Iterable[tuple[np.ndarray, F0Entry]], bins: int, hop: int) -> "QuantileF0":
        """Fits bins of equal counts to ((N,) Hz, statistics of the speaker) of each utterance. Beyond 2**23
        voiced frames (a day of speech) every second frame counts, then every fourth, so that memory is
        bounded. Raises ValueError if there are too few different values for so many bins."""
        values = _thinned(normalize_log(f0, entry)[f0 > 0] for f0, entry in rows)
        edges = np.quantile(values, np.arange(1, bins) / bins) if len(values) else np.zeros(bins)
        if not (np.diff(edges) > 0).all():
            raise ValueError(f"{len(values)} voiced frames do not fill {bins} bins: give fewer.")
        which = np.searchsorted(edges, values)
        return cls(edges, [float(np.median(values[which == bin_])) for bin_ in range(bins)], hop)

    def describe(self) -> dict[str, Any]:
        """Its description in `f0_codes.json`."""
        return {
            "representation": "quantile",
            "num_codes": len(self.centers) + 1,
            "f0_code_hop": self.hop,
            "normalize": "speaker_log_zscore",
            "edges": [round(float(value), 6) for value in self.edges],
            # the spelling of existing files
            "centres": [round(float(value), 6) for value in self.centers],
        }

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        frames = self.hop // F0_HOP
        padded = np.pad(np.asarray(f0, np.float32), (0, -len(f0) % frames)).reshape(-1, frames)
        voiced = (padded > 0).mean(1) >= 0.5
        medians = np.array([np.median(row[row > 0]) if row.any() else 0 for row in padded])
        mean, std = _log_pair(entry)
        normalized = (np.log(np.where(medians > 0, medians, 1)) - mean) / std
        return np.where(voiced, 1 + np.searchsorted(self.edges, normalized), 0).astype(np.int64)

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """Maps (F,) codes to Hz, the median of each bin."""
        mean, std = _log_pair(entry)
        hertz = np.exp(self.centers * std + mean)
        hertz = np.where(values > 0, hertz[np.maximum(values, 1) - 1], 0)
        return np.repeat(hertz, self.hop // F0_HOP).astype(np.float32)


def _thinned(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Joined parts; those of more than `MOST_VALUES` in all have every 2nd value, or 4th, or 8th."""
    kept, count, seen, step = [np.zeros(0, np.float32)], 0, 0, 1
    for part in parts:
        kept.append(part[-seen % step :: step].copy())
        seen, count = seen + len(part), count + len(kept[-1])
        while count > MOST_VALUES:
            kept, step = [np.concatenate(kept)[::2].copy()], 2 * step
            count = len(kept[0])
    return np.concatenate(kept)


def make_representation(
    description: Mapping[str, Any], f0_vqvae: F0Encoder | None, f0_channels: int = 0
) -> F0Representation:
    """The representation that `f0_codes.json` describes, some of which need the quantizer in evaluation mode.
    Without the key `representation` it is the paper's, or a z-score if the model has channels of F0. Raises
    ValueError if the representation is unknown, or its quantizer is missing."""
    kind = description.get("representation", "zscore" if f0_channels else "vqvae")
    if kind == "quantile":
        return QuantileF0(description["edges"], description["centres"], description["f0_code_hop"])
    if kind in ("continuous", "zscore"):
        return ContinuousF0() if kind == "continuous" else ZscoreF0()
    if kind not in ("vqvae", "log_vqvae"):
        raise ValueError(
            f"F0 representation {kind!r} is unknown, expected {', '.join(REPRESENTATIONS)}."
        )
    if f0_vqvae is None:
        raise ValueError("to encode pitch, give the checkpoint of the F0 quantizer (f0_path=…).")
    return LogVqvaeF0(f0_vqvae) if kind == "log_vqvae" else VqvaeF0(f0_vqvae)
