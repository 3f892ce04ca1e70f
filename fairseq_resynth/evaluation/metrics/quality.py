"""Predictors of quality, each an optional package; `predicts` says what each of them predicts."""

import contextlib
import functools
import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.evaluation.metrics.metric import Column, Comparison, Metric
from fairseq_resynth.measures.spectral import align_waveforms

UTMOS_HUB = "tarepan/SpeechMOS:v1.2.0"


class Dnsmos(Metric):
    """DNSMOS P.835 and P.808 (Reddy, Gopal and Cutler, 2021 and 2022) from the package speechmos."""

    name = "dnsmos"
    columns = tuple(
        Column(f"dnsmos_{kind.lower().replace('.', '')}", f"DNSMOS {kind}", "higher", digits=2)
        for kind in ("OVRL", "SIG", "BAK", "P.808")
    )
    predicts = (
        "listeners' ratings from 1 to 5 of denoised speech (overall, signal, background; ITU-T "
        "P.835) and of its quality (P.808); without a reference"
    )
    packages = ("speechmos", "onnxruntime", "requests")
    measures_reference = True

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The four scores; the package repeats clips shorter than 9 s."""
        from speechmos import dnsmos

        wav = np.clip(comparison.generated.wav, -1, 1)
        scores = dnsmos.run(wav, SAMPLE_RATE, return_df=False)
        names = (column.name for column in self.columns)
        return {name: float(scores[name.removeprefix("dnsmos_") + "_mos"]) for name in names}


@functools.cache
def _distillmos() -> Any:
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights on stdout
        return ConvTransformerSQAModel().eval()


@functools.cache
def _utmos() -> Any:
    import torch

    return torch.hub.load(UTMOS_HUB, "utmos22_strong", trust_repo=True).eval()


def _score(model: Any, comparison: Comparison, *more: int) -> float:
    import torch

    with torch.inference_mode():
        return float(model(torch.from_numpy(np.array(comparison.generated.wav[None])), *more))


class DistillMos(Metric):
    """Distill-MOS (Stahl and Gamper, 2025), distilled from an XLS-R quality model."""

    name = "distillmos"
    columns = (Column("distillmos", "Distill-MOS", "higher", digits=2),)
    predicts = (
        "listeners' ratings from 1 to 5 of speech quality, distilled from a larger predictor; "
        "without a reference"
    )
    packages = ("distillmos", "xls_r_sqa")
    install = "distillmos"
    measures_reference = True

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        return {"distillmos": _score(_distillmos(), comparison)}


class Utmos(Metric):
    """UTMOS, strong learner (Saeki et al., 2022), if torch.hub has already downloaded it."""

    name = "utmos"
    columns = (Column("utmos", "UTMOS", "higher", digits=2),)
    predicts = (
        "listeners' ratings from 1 to 5 of the naturalness of synthetic speech (VoiceMOS 2022); without a "
        "reference"
    )
    measures_reference = True

    def missing(self) -> str:
        """How to download the weights: a run does not do it, so that none waits for a network."""
        import torch

        folder = UTMOS_HUB.replace("/", "_").replace(":", "_")
        if (Path(torch.hub.get_dir()) / folder).is_dir():
            return ""
        call = f"torch.hub.load('{UTMOS_HUB}', 'utmos22_strong', trust_repo=True)"
        return f'its weights are not downloaded: python -c "import torch; {call}"'

    def version(self) -> str:
        return f"utmos22_strong of {UTMOS_HUB}"

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        return {"utmos": _score(_utmos(), comparison, SAMPLE_RATE)}


class Pesq(Metric):
    """PESQ, wide band (ITU-T P.862.2), from the package pesq."""

    name = "pesq"
    columns = (Column("pesq_wb", "PESQ-WB", "higher", digits=2),)
    predicts = (
        "MOS-LQO, 1.0 to 4.6, of telephone-network distortions against the reference; it was not "
        "made for vocoders"
    )
    needs = ("reference",)
    packages = ("pesq",)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The score; undefined where P.862 finds no utterance (silence, less than 0.25 s)."""
        import pesq

        try:
            with np.errstate(all="ignore"):  # it divides by the peak of silence
                return {"pesq_wb": float(pesq.pesq(SAMPLE_RATE, *comparison.wavs, "wb"))}
        except (pesq.NoUtterancesError, pesq.BufferTooShortError) as error:
            reason = error.args[0] if error.args else type(error).__name__
            reason = reason.decode() if isinstance(reason, bytes) else reason
            return {"pesq_wb": float("nan"), "notes": [f"PESQ: {reason}"]}


class Stoi(Metric):
    """STOI (Taal et al., 2011) and ESTOI (Jensen and Taal, 2016) from the package pystoi."""

    name = "stoi"
    columns = (Column("stoi", "STOI", "higher"), Column("estoi", "ESTOI", "higher"))
    predicts = "intelligibility of noisy speech against the reference, 0 to 1"
    needs = ("reference",)
    packages = ("pystoi",)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """Both scores; undefined with less than 0.4 s of speech."""
        from pystoi import stoi

        wavs = align_waveforms(*comparison.wavs)
        with contextlib.suppress(RuntimeWarning, ValueError, IndexError), warnings.catch_warnings():
            # where pystoi has too few frames it warns and returns 1e-5, which is not a score
            warnings.simplefilter("error", RuntimeWarning)
            if wavs[0].any():
                plain, extended = stoi(*wavs, SAMPLE_RATE), stoi(*wavs, SAMPLE_RATE, extended=True)
                return {"stoi": float(plain), "estoi": float(extended)}
        return {"stoi": math.nan, "estoi": math.nan, "notes": ["STOI: too little speech"]}
