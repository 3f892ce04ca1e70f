"""Metrics on waveforms alone: levels, F0 and spectral distances, in the shape of `Metric`."""

from typing import Any

import numpy as np

from fairseq_resynth.data.pitch.extraction import F0Options, extract_f0
from fairseq_resynth.evaluation.metrics.metric import (
    Column,
    Metric,
    Recording,
    Utterance,
    importable,
    install_hint,
)
from fairseq_resynth.measures import f0_errors as f0
from fairseq_resynth.measures import spectral

CLIPPED = 0.999  # of full scale
SILENT_RMS_DB = -70.0
TRACK_STEP = 4  # F0 kept for plots at 50 Hz


class Level(Metric):
    """Duration, loudness and clipping: what explains odd figures elsewhere."""

    def __init__(self) -> None:
        super().__init__(
            name="level",
            columns=(
                Column("seconds", "seconds", "", digits=2),
                Column("rms_db", "RMS dBFS", "", digits=1),
                Column("clipped", "clipped %", weight="samples", digits=2, scale=100),
            ),
            predicts="nothing: duration, root mean square and the share of samples at full scale",
            judges_reference=True,
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; silence is -100 dB and noted."""
        wav = utterance.generated.wav
        rms_db = 10 * np.log10(max(float(np.mean(wav.astype(float) ** 2)), 1e-10))
        clipped = float(np.mean(np.abs(wav) >= CLIPPED))
        notes = ["silent"] if rms_db < SILENT_RMS_DB else []
        notes += [f"{100 * clipped:.1f} % clipped"] if clipped > 0.001 else []
        if utterance.generated.file_rate != 16000:
            notes.append(f"resampled from {utterance.generated.file_rate} Hz")
        values = {"seconds": len(wav) / 16000, "samples": len(wav), "rms_db": rms_db}
        return {**values, "clipped": clipped, "notes": notes}


class F0(Metric):
    """VDE, GPE, FFE, log-F0 RMSE and correlation: see `evaluation.f0` for formulas and sources."""

    def __init__(self) -> None:
        super().__init__(
            name="f0",
            columns=(
                Column("vde", "VDE %", weight="frames", digits=1, scale=100),
                Column("gpe", "GPE %", weight="frames_both_voiced", digits=1, scale=100),
                Column("ffe", "FFE %", weight="frames", digits=1, scale=100),
                Column("log_f0_rmse", "log-F0 RMSE", weight="frames_both_voiced"),
                Column("log_f0_correlation", "log-F0 corr.", "higher"),
            ),
            predicts="pitch and voicing errors, frame by frame at 200 Hz without warping; lengths "
            "may differ by 0.2 s, which is cut",
            needs=("reference",),
            settings={"f0_method": "yaapt"},
        )

    def missing(self) -> str:
        """See `Metric`."""
        method = self.settings["f0_method"]
        if method in ("dio", "harvest") and not importable("pyworld"):
            return install_hint(["pyworld"], "pyworld")
        return ""

    def prepare(self) -> None:
        """See `Metric`."""
        try:
            F0Options(self.settings["f0_method"])
        except ValueError as error:
            raise ValueError(f"--f0-method: {error}") from error

    def version(self) -> str:
        """See `Metric`."""
        return f"1, F0 by {self.settings['f0_method']}"

    def _track(self, recording: Recording) -> np.ndarray:
        method = self.settings["f0_method"]
        return recording.derive("f0", lambda wav: np.ravel(extract_f0(wav, method)))

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; also both tracks at 50 Hz, for plots."""
        reference, generated = self._track(utterance.reference), self._track(utterance.generated)
        tracks = {"f0_reference": reference, "f0_generated": generated}
        thinned = {
            key: np.rint(track[::TRACK_STEP]).astype(int).tolist() for key, track in tracks.items()
        }
        return f0.f0_errors(reference, generated) | thinned


class MelL1(Metric):
    """Mel L1: see `evaluation.spectral`."""

    def __init__(self) -> None:
        super().__init__(
            name="mel",
            columns=(Column("mel_l1", "mel L1", weight="mel_seconds"),),
            predicts="difference of HiFi-GAN's log-mel spectrograms (Kong et al., 2020), in nepers",
            needs=("reference",),
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`."""
        pair = utterance.reference.wav, utterance.generated.wav
        seconds = min(map(len, pair)) / 16000
        return {"mel_l1": spectral.mel_l1_distance(*pair), "mel_seconds": seconds}


class MelCepstralDistortion(Metric):
    """MCD with and without DTW: see `evaluation.spectral`."""

    def __init__(self) -> None:
        super().__init__(
            name="mcd",
            columns=(Column("mcd", "MCD dB", digits=2), Column("mcd_dtw", "MCD-DTW dB", digits=2)),
            predicts="distance of spectral envelopes (Kubichek, 1993) over SPTK mel-cepstra, order "
            "23, alpha 0.42, without c0; the second with timing freed",
            needs=("reference",),
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; the variant without DTW is undefined for lengths over 0.2 s apart."""
        pair = utterance.reference.wav, utterance.generated.wav
        result: dict[str, Any] = {"mcd_dtw": spectral.mel_cepstral_distortion(*pair, dtw=True)}
        try:
            result["mcd"] = spectral.mel_cepstral_distortion(*pair)
        except ValueError as error:
            result |= {"mcd": float("nan"), "notes": [str(error)]}
        return result


class MultiResolutionStft(Metric):
    """Multi-resolution STFT distances: see `evaluation.spectral`."""

    def __init__(self) -> None:
        super().__init__(
            name="stft",
            columns=(
                Column("spectral_convergence", "spectral conv."),
                Column("log_magnitude", "log magnitude"),
            ),
            predicts="difference of magnitude spectra at three resolutions (Parallel WaveGAN, 2020)",
            needs=("reference",),
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`."""
        return spectral.multi_resolution_stft(utterance.reference.wav, utterance.generated.wav)
