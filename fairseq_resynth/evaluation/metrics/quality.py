"""Predictors of quality, each an optional package: what they predict is in `predicts`."""

import contextlib
import functools
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.evaluation.metrics.metric import Column, Metric, Utterance
from fairseq_resynth.measures.spectral import align_waveforms

UTMOS_HUB = "tarepan/SpeechMOS:v1.2.0"


class Dnsmos(Metric):
    """DNSMOS P.835 and P.808 (Reddy, Gopal and Cutler, 2021 and 2022) from the package speechmos."""

    def __init__(self) -> None:
        super().__init__(
            name="dnsmos",
            columns=(
                Column("dnsmos_ovrl", "DNSMOS OVRL", "higher", digits=2),
                Column("dnsmos_sig", "DNSMOS SIG", "higher", digits=2),
                Column("dnsmos_bak", "DNSMOS BAK", "higher", digits=2),
                Column("dnsmos_p808", "DNSMOS P.808", "higher", digits=2),
            ),
            predicts="listeners' 1 to 5 of denoised speech (overall, signal, background; ITU-T "
            "P.835) and of its quality (P.808); without a reference",
            packages=("speechmos", "onnxruntime", "requests"),
            install="speechmos onnxruntime requests",
            judges_reference=True,
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; clips under 9 s are repeated, as its package does."""
        from speechmos import dnsmos

        wav = np.clip(utterance.generated.wav, -1, 1)
        scores = dnsmos.run(wav, 16000, return_df=False)
        kinds = ("ovrl", "sig", "bak", "p808")
        return {f"dnsmos_{kind}": float(scores[f"{kind}_mos"]) for kind in kinds}


@functools.cache
def _distillmos() -> Any:
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights on stdout
        return ConvTransformerSQAModel().eval()


class DistillMos(Metric):
    """Distill-MOS (Stahl and Gamper, 2025), distilled from an XLS-R quality model."""

    def __init__(self) -> None:
        super().__init__(
            name="distillmos",
            columns=(Column("distillmos", "Distill-MOS", "higher", digits=2),),
            predicts="listeners' 1 to 5 of speech quality, distilled from a larger predictor; "
            "without a reference",
            packages=("distillmos", "xls_r_sqa"),
            install="distillmos",
            judges_reference=True,
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`."""
        import torch

        with torch.inference_mode():
            score = _distillmos()(torch.from_numpy(np.array(utterance.generated.wav[None])))
        return {"distillmos": float(score)}


class Pesq(Metric):
    """PESQ, wide band (ITU-T P.862.2), from the package pesq."""

    def __init__(self) -> None:
        super().__init__(
            name="pesq",
            columns=(Column("pesq_wb", "PESQ-WB", "higher", digits=2),),
            predicts="MOS-LQO, 1.0 to 4.6, of telephone-network distortions against the reference; "
            "vocoders are outside of what it was made for",
            needs=("reference",),
            packages=("pesq",),
            install="pesq",
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; undefined where P.862 finds no utterance (silence, under 0.25 s)."""
        import pesq

        try:
            wavs = utterance.reference.wav, utterance.generated.wav
            with np.errstate(all="ignore"):  # it divides by the peak of silence
                return {"pesq_wb": float(pesq.pesq(16000, *wavs, "wb"))}
        except (pesq.NoUtterancesError, pesq.BufferTooShortError) as error:
            return {"pesq_wb": float("nan"), "notes": [f"PESQ: {_reason(error)}"]}


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else type(error).__name__
    return text.decode() if isinstance(text, bytes) else str(text)


class Stoi(Metric):
    """STOI (Taal et al., 2011) and ESTOI (Jensen and Taal, 2016) from the package pystoi."""

    def __init__(self) -> None:
        super().__init__(
            name="stoi",
            columns=(
                Column("stoi", "STOI", "higher"),
                Column("estoi", "ESTOI", "higher"),
            ),
            predicts="intelligibility of noisy speech against the reference, 0 to 1",
            needs=("reference",),
            packages=("pystoi",),
            install="pystoi",
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; undefined with under 0.4 s of speech."""
        import warnings

        from pystoi import stoi

        wavs = align_waveforms(utterance.reference.wav, utterance.generated.wav)
        undefined = {"stoi": math.nan, "estoi": math.nan, "notes": ["STOI: too little speech"]}
        if not wavs[0].any():
            return undefined
        try:
            with warnings.catch_warnings():
                # pystoi returns 1e-5 and warns where it has too few frames: no score at all
                warnings.simplefilter("error", RuntimeWarning)
                plain, extended = (stoi(*wavs, 16000, extended=kind) for kind in (False, True))
                return {"stoi": float(plain), "estoi": float(extended)}
        except (RuntimeWarning, ValueError, IndexError):
            return undefined


@functools.cache
def _utmos() -> Any:
    import torch

    return torch.hub.load(UTMOS_HUB, "utmos22_strong", trust_repo=True).eval()


class Utmos(Metric):
    """UTMOS, strong learner (Saeki et al., 2022), once torch.hub has fetched it."""

    def __init__(self) -> None:
        super().__init__(
            name="utmos",
            columns=(Column("utmos", "UTMOS", "higher", digits=2),),
            predicts="listeners' naturalness 1 to 5 of synthetic speech (VoiceMOS 2022); without a "
            "reference",
            judges_reference=True,
        )

    def missing(self) -> str:
        """See `Metric`: used only where torch.hub has it, so that no run waits for a network."""
        import torch

        folder = UTMOS_HUB.replace("/", "_").replace(":", "_")
        if (Path(torch.hub.get_dir()) / folder).is_dir():
            return ""
        call = f"torch.hub.load('{UTMOS_HUB}', 'utmos22_strong', trust_repo=True)"
        return f'its weights are not here: python -c "import torch; {call}" fetches them'

    def version(self) -> str:
        """See `Metric`."""
        return f"utmos22_strong of {UTMOS_HUB}"

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`."""
        import torch

        with torch.inference_mode():
            score = _utmos()(torch.from_numpy(np.array(utterance.generated.wav[None])), 16000)
        return {"utmos": float(score)}
