"""How F0 in Hz becomes what a generator takes, and back: one interface, several representations.

Unlike a z-score of Hz with unvoiced frames at 0, where a voiced frame at the mean looks unvoiced, the
representations of log-F0 keep the voicing apart.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.pitch.statistics import STD_FLOOR, F0Entry, SpeakerStatistics


class F0Encoder(Protocol):
    """What is needed of `modules.f0_vqvae.F0Vqvae`."""

    num_codes: int
    stride: int

    def encode(self, f0: Tensor) -> Tensor:
        """(B, 1, N) normalised F0 to (B, N / stride) codes."""


def weights_hash(module: nn.Module) -> str:
    """Returns 16 hexadecimal digits of a module's weights, the same from a checkpoint and from a bundle."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def encode_f0(f0_vqvae: F0Encoder, f0: np.ndarray) -> np.ndarray:
    """Quantises one utterance's pitch.

    Alone, not in a batch: beside a longer one, the convolutions would see more than zeros after its end.

    Args:
        f0_vqvae: the quantiser, in evaluation mode.
        f0: (N,) or (C, N) float32, normalised by speaker.

    Returns:
        (ceil(N / stride),) int64; the last code's missing frames are unvoiced.
    """
    f0 = np.atleast_2d(np.asarray(f0, dtype=np.float32))
    padded = np.pad(f0, ((0, 0), (0, -f0.shape[1] % f0_vqvae.stride)))
    return f0_vqvae.encode(torch.from_numpy(padded)[None])[0].numpy()


def describe(f0_vqvae: F0Encoder, checkpoint: str | Path) -> dict[str, Any]:
    """Returns what `f0_codes.json` says of the quantiser."""
    extra = {}
    if getattr(f0_vqvae, "channels", 1) == 2:
        extra = {"representation": "log_vqvae", "normalize": "speaker_log_zscore"}
    return {
        "checkpoint": Path(checkpoint).name,
        "vqvae_hash": weights_hash(f0_vqvae),
        "num_codes": f0_vqvae.num_codes,
        "f0_code_hop": f0_vqvae.stride * F0_HOP,
        "normalize": "speaker_zscore",
        **extra,
    }


VOICED = 0.15  # |z-score| below it is what the paper's quantiser makes of unvoiced frames
LOG_STD_FLOOR = 0.01  # a sixth of a semitone
REPRESENTATIONS = ("vqvae", "log_vqvae", "quantile", "continuous", "zscore")


class F0Representation(Protocol):
    """F0 of a voice with known statistics, as codes or as channels of numbers."""

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        """Maps (N,) Hz, 0 = unvoiced, to (F,) int64 codes or (C, N) float32."""

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """Maps codes or channels to (N,) float32 Hz, 0 = unvoiced."""


class VqvaeF0:
    """The paper's: codes of a VQ-VAE over F0 z-scored by speaker (Polyak et al., 2021, section 2.1).

    Args:
        f0_vqvae: the quantiser, in evaluation mode.
    """

    def __init__(self, f0_vqvae: F0Encoder):
        self.f0_vqvae = f0_vqvae

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        return encode_f0(self.f0_vqvae, SpeakerStatistics({}, entry).normalize(f0, None))

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`; frames near the mean come back unvoiced, which is the paper's flaw."""
        import torch

        with torch.inference_mode():
            normalized = self.f0_vqvae.decode(torch.from_numpy(values)[None])[0, 0].numpy()
        voiced = np.where(np.abs(normalized) > VOICED, normalized, 0)
        return SpeakerStatistics({}, entry).denormalize(voiced, None)


class LogVqvaeF0:
    """Codes of a VQ-VAE over interpolated log-F0 and voicing, trained with a loss on both.

    Args:
        f0_vqvae: the quantiser, trained with --f0-input log_voicing, in evaluation mode.
    """

    def __init__(self, f0_vqvae: F0Encoder):
        self.f0_vqvae = f0_vqvae

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        return encode_f0(self.f0_vqvae, ContinuousF0().encode(f0, entry))

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        import torch

        with torch.inference_mode():
            level, logit = self.f0_vqvae.decode(torch.from_numpy(values)[None])[0].numpy()
        return ContinuousF0().decode(np.stack([level, logit > 0]), entry)


def _log_pair(entry: F0Entry) -> tuple[float, float]:
    if "log_f0_mean" in entry:
        return entry["log_f0_mean"], max(entry["log_f0_std"], LOG_STD_FLOOR)
    # Statistics of an older speakers.json, or of the original: of a log-normal of that mean and deviation.
    mean, std = entry["f0_mean"], max(entry["f0_std"], STD_FLOOR)
    variance = np.log1p((std / mean) ** 2)
    return float(np.log(mean) - variance / 2), max(float(np.sqrt(variance)), LOG_STD_FLOOR)


def normalize_log(f0: np.ndarray, entry: F0Entry) -> np.ndarray:
    """Returns (N,) float32: log-F0 z-scored by the voice, straight lines across unvoiced frames."""
    voiced = np.flatnonzero(f0 > 0)
    if not len(voiced):
        return np.zeros(len(f0), np.float32)
    mean, std = _log_pair(entry)
    values = (np.log(np.asarray(f0, np.float64)[voiced]) - mean) / std
    return np.interp(np.arange(len(f0)), voiced, values).astype(np.float32)


class QuantileF0:
    """Quantile bins of log-F0 normalised by speaker, at the units' rate (pGSLM, Kharitonov et al., 2022).

    Code 0 is unvoiced; a code's frames are voiced if at least half of them are, at their median.

    Args:
        edges: (bins - 1,) ascending, between the bins.
        centres: (bins,) the median of each.
        hop: samples a code.
    """

    def __init__(self, edges: Iterable[float], centres: Iterable[float], hop: int):
        self.edges, self.centres = np.array(list(edges)), np.array(list(centres))
        self.hop = hop
        if len(self.edges) + 1 != len(self.centres) or not (np.diff(self.edges) > 0).all():
            raise ValueError("the F0 bins' edges must ascend, one fewer than there are centres")

    @classmethod
    def fit(cls, rows: Iterable[tuple[np.ndarray, F0Entry]], bins: int, hop: int) -> "QuantileF0":
        """Fits bins of equal counts on ((N,) Hz, statistics) of utterances.

        Raises:
            ValueError: too few different values for so many bins.
        """
        values = np.concatenate([normalize_log(f0, entry)[f0 > 0] for f0, entry in rows])
        edges = np.quantile(values, np.arange(1, bins) / bins) if len(values) else np.zeros(bins)
        if not (np.diff(edges) > 0).all():
            raise ValueError(f"{len(values)} voiced frames do not fill {bins} bins: give fewer.")
        which = np.searchsorted(edges, values)
        return cls(edges, [float(np.median(values[which == bin_])) for bin_ in range(bins)], hop)

    def describe(self) -> dict[str, Any]:
        """Returns what `f0_codes.json` says of it."""
        rounded = {
            "edges": [round(float(value), 6) for value in self.edges],
            "centres": [round(float(value), 6) for value in self.centres],
        }
        return {
            "representation": "quantile",
            "num_codes": len(self.centres) + 1,
            "f0_code_hop": self.hop,
            "normalize": "speaker_log_zscore",
            **rounded,
        }

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        frames = self.hop // F0_HOP
        padded = np.pad(np.asarray(f0, np.float32), (0, -len(f0) % frames)).reshape(-1, frames)
        voiced = (padded > 0).mean(1) >= 0.5
        medians = np.array([np.median(row[row > 0]) if row.any() else 0 for row in padded])
        normalized = (np.log(np.where(medians > 0, medians, 1)) - _log_pair(entry)[0]) / _log_pair(
            entry
        )[1]
        codes = 1 + np.searchsorted(self.edges, normalized)
        return np.where(voiced, codes, 0).astype(np.int64)

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        mean, std = _log_pair(entry)
        hertz = np.exp(self.centres * std + mean)
        hertz = np.where(values > 0, hertz[np.maximum(values, 1) - 1], 0)
        return np.repeat(hertz, self.hop // F0_HOP).astype(np.float32)


class ContinuousF0:
    """Log-F0 z-scored by speaker, interpolated over unvoiced frames, and a voicing flag: (2, N) at 200 Hz."""

    @staticmethod
    def describe() -> dict[str, Any]:
        """Returns what `f0_codes.json` says of it."""
        return {
            "representation": "continuous",
            "num_codes": 0,
            "f0_channels": 2,
            "normalize": "speaker_log_zscore",
        }

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        voicing = (np.asarray(f0) > 0).astype(np.float32)
        return np.stack([normalize_log(np.asarray(f0), entry), voicing])

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        mean, std = _log_pair(entry)
        hertz = np.exp(values[0].astype(np.float64) * std + mean)
        return np.where(values[1] >= 0.5, hertz, 0).astype(np.float32)


class ZscoreF0:
    """F0 z-scored by speaker, unvoiced frames at 0: (1, N), as code HiFi-GANs on continuous F0 take it."""

    def encode(self, f0: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        return SpeakerStatistics({}, entry).normalize(f0, None)[None]

    def decode(self, values: np.ndarray, entry: F0Entry) -> np.ndarray:
        """See `F0Representation`."""
        return SpeakerStatistics({}, entry).denormalize(values[0], None)


def make_representation(
    description: Mapping[str, Any], f0_vqvae: F0Encoder | None, f0_channels: int = 0
) -> F0Representation:
    """Builds what `f0_codes.json` describes.

    Args:
        description: of the streams; without a `representation` the paper's.
        f0_vqvae: its quantiser, where one is needed.
        f0_channels: of the model; one, without a `representation`, is a z-score.

    Raises:
        ValueError: an unknown representation, or no quantiser.
    """
    kind = description.get("representation", "zscore" if f0_channels else "vqvae")
    if kind == "quantile":
        return QuantileF0(description["edges"], description["centres"], description["f0_code_hop"])
    if kind == "continuous":
        return ContinuousF0()
    if kind == "zscore":
        return ZscoreF0()
    if kind not in ("vqvae", "log_vqvae"):
        raise ValueError(
            f"F0 representation {kind!r} is unknown, expected {', '.join(REPRESENTATIONS)}."
        )
    if f0_vqvae is None:
        raise ValueError("to encode pitch, give the checkpoint of the F0 quantiser (f0_path=…).")
    return LogVqvaeF0(f0_vqvae) if kind == "log_vqvae" else VqvaeF0(f0_vqvae)
