"""Predictors of quality, each an optional package; `predicts` says what each of them predicts."""

import contextlib
import functools
import io
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.storage.messages import one_line
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
def _distillmos(device: str) -> Any:
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights on stdout
        return ConvTransformerSQAModel().eval().to(device)


@functools.cache
def _utmos(device: str) -> Any:
    import torch

    return torch.hub.load(UTMOS_HUB, "utmos22_strong", trust_repo=True).eval().to(device)


def _score(model: Any, device: str, comparison: Comparison, *more: int) -> float:
    import torch

    with torch.inference_mode():
        return float(model(torch.tensor(comparison.generated.wav[None], device=device), *more))


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
        return {"distillmos": _score(_distillmos(self.device), self.device, comparison)}


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
        model = _utmos(self.device)
        return {"utmos": _score(model, self.device, comparison, SAMPLE_RATE)}


class _GivenWeights(Metric):
    """A predictor whose weights are the file that its setting, called as the metric, names."""

    measures_reference = True
    weights = ""  # what the file is called, and where it is published

    def missing(self) -> str:
        if not self.settings[self.name]:
            return f"needs its weights: give --{self.name} FILE, {self.weights}"
        return super().missing()

    def load(self, weights: str) -> Any:
        """Loads the predictor."""
        raise NotImplementedError

    def prepare(self) -> None:
        weights = self.settings[self.name]
        if not Path(weights).is_file():
            raise FileNotFoundError(f"--{self.name} {weights} does not exist; give {self.weights}")
        try:
            self.load(weights)
        # torch and the packages have their own errors for a file that is something else
        except Exception as error:
            raise ValueError(
                f"--{self.name} {weights} cannot be loaded: {one_line(error)}"
            ) from error


@functools.cache
def _utmosv2(weights: str) -> Any:
    import utmosv2

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights on stdout
        return utmosv2.create_model(checkpoint_path=weights).eval()


class UtmosV2(_GivenWeights):
    """UTMOSv2 (Baba et al., 2024) from the package utmosv2."""

    name = "utmosv2"
    columns = (Column("utmosv2", "UTMOSv2", "higher", digits=2),)
    predicts = (
        "listeners' ratings from 1 to 5 of the naturalness of synthetic speech (VoiceMOS 2024), from random "
        "excerpts, so that values vary a little; without a reference"
    )
    packages = ("utmosv2",)
    install = "git+https://github.com/sarulab-speech/UTMOSv2"
    settings = {"utmosv2": None}
    weights = "such as fold0_s42_best_model.pth of huggingface.co/sarulab-speech/UTMOSv2"

    def load(self, weights: str) -> Any:
        return _utmosv2(weights)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        options = {"device": self.device, "num_workers": 0, "verbose": False}
        model = _utmosv2(self.settings["utmosv2"])
        score = model.predict(data=np.array(comparison.generated.wav), **options)
        return {"utmosv2": float(np.ravel(score)[0])}


@functools.cache
def _nisqa(weights: str) -> Any:
    from torchmetrics.functional.audio import nisqa

    if Path(weights).name != "nisqa.tar":
        raise ValueError("expected the name nisqa.tar")
    nisqa.NISQA_DIR = str(Path(weights).resolve().parent)
    nisqa._load_nisqa_model.cache_clear()
    nisqa._load_nisqa_model()
    return nisqa.non_intrusive_speech_quality_assessment


class Nisqa(_GivenWeights):
    """NISQA v2.0 (Mittag et al., 2021) from the package torchmetrics."""

    name = "nisqa"
    columns = tuple(
        Column(f"nisqa_{kind}", f"NISQA {kind}", "higher", digits=2)
        for kind in ("mos", "noisiness", "discontinuity", "coloration", "loudness")
    )
    predicts = (
        "listeners' ratings from 1 to 5 of speech over networks, and of four properties of it (5 is free of "
        "the defect); without a reference"
    )
    packages = ("torchmetrics", "requests")
    settings = {"nisqa": None}
    weights = "nisqa.tar of github.com/gabrielmittag/NISQA (CC BY-NC-SA 4.0)"

    def load(self, weights: str) -> Any:
        return _nisqa(weights)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The five scores; undefined where a clip is too short or too long for the network."""
        import torch

        names = [column.name for column in self.columns]
        wav = torch.from_numpy(np.array(comparison.generated.wav))
        try:
            scores = _nisqa(self.settings["nisqa"])(wav, SAMPLE_RATE)
        except RuntimeError as error:
            return {**dict.fromkeys(names, math.nan), "notes": [f"NISQA: {error}"]}
        return dict(zip(names, scores.tolist(), strict=True))


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


@functools.cache
def _visqol() -> Any:
    from visqol import VisqolApi

    logging.getLogger("visqol").setLevel(logging.ERROR)  # it warns of every difference in length
    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    return api


class Visqol(Metric):
    """ViSQOL v3 (Chinen et al., 2020), speech mode with the lattice, from the package visqol-python."""

    name = "visqol"
    columns = (Column("visqol", "ViSQOL", "higher", digits=2),)
    predicts = (
        "MOS-LQO, 1 to about 4.5 for identical speech, of coded speech against the reference, from the "
        "similarity of gammatone spectrograms"
    )
    needs = ("reference",)
    packages = ("visqol", "ai_edge_litert")
    install = "'visqol-python[lattice]'"

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The score; undefined where it finds no patch of speech (silence, less than about 0.8 s)."""
        pair = [wav.astype(np.float64) for wav in comparison.wavs]
        score = math.nan
        # where no patch is left it fails to index the empty list; it divides by the level of silence
        with contextlib.suppress(IndexError, ValueError), np.errstate(all="ignore"):
            score = float(_visqol().measure_from_arrays(*pair, SAMPLE_RATE).moslqo)
        notes = ["ViSQOL: too little speech"] if math.isnan(score) else []
        return {"visqol": score, "notes": notes}


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
