"""Metrics of waveforms alone: levels, F0 and spectral distances. Their formulas are in `measures`."""

from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.pitch.extraction import F0Options, extract_f0
from fairseq_resynth.evaluation.metrics.metric import Column, Comparison, Metric, Recording
from fairseq_resynth.evaluation.metrics.packages import missing_packages
from fairseq_resynth.measures import spectral
from fairseq_resynth.measures.alignment import TooLongError
from fairseq_resynth.measures.f0_errors import f0_errors

CLIPPED = 0.999  # of full scale
CLIPPED_NOTE = 0.001  # share of clipped samples from which a note is written
SILENT_RMS_DB = -70.0
TRACK_STEP = 4  # every fourth frame of F0 is kept for plots: 50 Hz


class Level(Metric):
    """Duration, loudness and clipping, which explain odd values of other metrics."""

    name = "level"
    columns = (
        Column("seconds", "seconds", "", digits=2),
        Column("rms_db", "RMS dBFS", "", digits=1),
        Column("clipped", "clipped %", weight="samples", digits=2, scale=100),
    )
    predicts = "nothing: duration, root mean square and the share of samples at full scale"
    measures_reference = True

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        wav = comparison.generated.wav
        rms_db = 10 * np.log10(max(float(np.mean(wav.astype(float) ** 2)), 1e-10))
        clipped = float(np.mean(np.abs(wav) >= CLIPPED))
        notes = ["silent"] if rms_db < SILENT_RMS_DB else []
        notes += [f"{100 * clipped:.1f} % clipped"] if clipped > CLIPPED_NOTE else []
        if comparison.generated.file_rate != SAMPLE_RATE:
            notes.append(f"resampled from {comparison.generated.file_rate} Hz")
        values = {"seconds": len(wav) / SAMPLE_RATE, "samples": len(wav), "rms_db": rms_db}
        return {**values, "clipped": clipped, "notes": notes}


class F0(Metric):
    """VDE, GPE, FFE, and the root mean square error and correlation of log F0."""

    name = "f0"
    columns = (
        Column("vde", "VDE %", weight="frames", digits=1, scale=100),
        Column("gpe", "GPE %", weight="frames_both_voiced", digits=1, scale=100),
        Column("ffe", "FFE %", weight="frames", digits=1, scale=100),
        Column("log_f0_rmse", "log-F0 RMSE", weight="frames_both_voiced"),
        Column("log_f0_correlation", "log-F0 corr.", "higher"),
    )
    predicts = (
        "pitch and voicing errors, frame by frame at 200 Hz without time warping; lengths may "
        "differ by 0.2 s, which is cut"
    )
    needs = ("reference",)
    settings = {"f0_method": "yaapt"}

    def missing(self) -> str:
        packages = {"dio": "pyworld", "harvest": "pyworld", "swift": "swift_f0"}
        package = packages.get(self.settings["f0_method"])
        return missing_packages([package], package.replace("_", "-")) if package else ""

    def prepare(self) -> None:
        try:
            F0Options(self.settings["f0_method"])
        except ValueError as error:
            raise ValueError(f"--f0-method: {error}") from error

    def version(self) -> str:
        return f"1, F0 by {self.settings['f0_method']}"

    def _track(self, recording: Recording) -> np.ndarray:
        method = self.settings["f0_method"]
        return recording.derive("f0", lambda wav: np.ravel(extract_f0(wav, method)))

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The errors, and both tracks at 50 Hz for plots."""
        reference, generated = self._track(comparison.reference), self._track(comparison.generated)
        tracks = {"f0_reference": reference, "f0_generated": generated}
        return f0_errors(reference, generated) | {
            key: np.rint(track[::TRACK_STEP]).astype(int).tolist() for key, track in tracks.items()
        }


class MelL1(Metric):
    """Mean absolute difference of log-mel spectrograms."""

    name = "mel"
    columns = (Column("mel_l1", "mel L1", weight="mel_seconds"),)
    predicts = "difference of HiFi-GAN's log-mel spectrograms (Kong et al., 2020), in nepers"
    needs = ("reference",)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        seconds = min(map(len, comparison.wavs)) / SAMPLE_RATE
        return {"mel_l1": spectral.mel_l1_distance(*comparison.wavs), "mel_seconds": seconds}


class MelCepstralDistortion(Metric):
    """Mel-cepstral distortion with and without dynamic time warping (DTW)."""

    name = "mcd"
    columns = (
        Column("mcd", "MCD dB", digits=2),
        Column("mcd_dtw", "MCD-DTW dB", digits=2),
        Column("mcd_dtw_c0", "MCD-DTW dB with c0", digits=2),
    )
    predicts = (
        "distance of spectral envelopes (Kubichek, 1993) over SPTK mel-cepstra, order 23, alpha "
        "0.42, without c0; the second with dynamic time warping, the third also with c0, as ESPnet"
    )
    needs = ("reference",)

    def version(self) -> str:
        return "2"  # with c0 as well

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The distances; the one without DTW is undefined where lengths differ by more than 0.2 s, those with
        DTW for recordings of many minutes."""
        pair, notes = comparison.wavs, []
        first, second = (spectral.mel_cepstrum(wav) for wav in pair)
        distance, undefined = spectral.cepstral_distance, float("nan")
        try:
            warped = tuple(distance(first, second, True, loudness) for loudness in (False, True))
        except TooLongError as error:
            warped = undefined, undefined
            notes.append(str(error))
        result: dict[str, Any] = dict(zip(("mcd_dtw", "mcd_dtw_c0"), warped, strict=True))
        try:
            spectral.align_waveforms(*pair)
            result["mcd"] = distance(first, second)
        except ValueError as error:
            result["mcd"] = undefined
            notes.append(str(error))
        return {**result, "notes": notes} if notes else result


class MultiResolutionStft(Metric):
    """Spectral convergence and log-magnitude distance at three STFT resolutions."""

    name = "stft"
    columns = (
        Column("spectral_convergence", "spectral conv."),
        Column("log_magnitude", "log magnitude"),
    )
    predicts = "difference of magnitude spectra at three resolutions (Parallel WaveGAN, 2020)"
    needs = ("reference",)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        return spectral.multi_resolution_stft(*comparison.wavs)
