"""The metrics: the built-in ones, in the order of the report, and those of other packages."""

import importlib.metadata
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

from fairseq_resynth.evaluation.metrics.metric import Column, Metric

ENTRY_POINTS = "fairseq_resynth.metrics"
# name of the metric -> file of this folder and class; a file is imported when one of its metrics is asked for
BUILT_IN = {
    "f0": "signal:F0",
    "mel": "signal:MelL1",
    "mcd": "signal:MelCepstralDistortion",
    "stft": "signal:MultiResolutionStft",
    "wer": "intelligibility:Intelligibility",
    "speaker": "speaker:Speaker",
    "dnsmos": "quality:Dnsmos",
    "distillmos": "quality:DistillMos",
    "utmos": "quality:Utmos",
    "utmosv2": "quality:UtmosV2",
    "nisqa": "quality:Nisqa",
    "pesq": "quality:Pesq",
    "visqol": "quality:Visqol",
    "stoi": "quality:Stoi",
    "units": "units:Units",
    "rate": "units:Rate",
    "speed": "units:Speed",
    "level": "signal:Level",
    "versa": "versa:Versa",
}
# How the report shows what `pooled` of the metrics returns.
POOLED = (
    Column("eer", "EER %", "lower", "", 1, 100),
    Column("codebook_use", "codebook used %", "", "", 1, 100),
    Column("codebook_perplexity", "codebook perplexity", "", "", 1),
)
# Options of `resynth evaluate` that metrics read by these names from their settings -> what argparse takes;
# the default is that of the metric.
OPTIONS: dict[str, dict[str, Any]] = {
    "recognizer": {
        "help": "speech recognizer: pocketsphinx, whisper:NAME_OR_FOLDER or ctc:NAME_OR_FOLDER",
        "default": "pocketsphinx",
    },
    "normalizer": {
        "help": "how text is normalized before words are compared: basic, or as Whisper's error rates are "
        "published, whisper-english or, for other languages, whisper-basic",
        "choices": ("basic", "whisper-english", "whisper-basic"),
        "default": "basic",
    },
    "language": {"help": "language for whisper, such as en; default: detected"},
    "speaker_encoder": {
        "help": "resemblyzer, xvector:NAME_OR_FOLDER, or a file torchscript:FILE, onnx:FILE, "
        "torchscript-fbank:FILE or onnx-fbank:FILE",
        "default": "resemblyzer",
    },
    "enroll": {
        "metavar": "DIR",
        "help": "enrollment recordings DIR/SPEAKER/*.wav; default: the references",
    },
    "trials": {
        "metavar": "FILE",
        "help": "lines of utterance<TAB>speaker for the EER; default: every utterance against every speaker",
    },
    "utmosv2": {
        "metavar": "FILE",
        "help": "weights of UTMOSv2, such as fold0_s42_best_model.pth",
    },
    "nisqa": {"metavar": "FILE", "help": "weights of NISQA, nisqa.tar"},
    "versa": {
        "metavar": "DIR",
        "help": "folder for VERSA: gets DIR/SYSTEM/wav.scp, reference.scp and text to run it on; its "
        "results, DIR/SYSTEM/*.jsonl, become part of the report",
    },
    "f0_method": {"help": "F0 extraction method: yaapt, swift, dio or harvest", "default": "yaapt"},
}


class _Broken(Metric):
    """Stands for a metric of another package that cannot be imported; it is listed as missing."""

    predicts = "nothing: it cannot be loaded"

    def __init__(self, name: str, reason: str) -> None:
        self.name, self._reason = name, reason

    def missing(self) -> str:
        return f"cannot be loaded from {self._reason}"


def _make(point: EntryPoint) -> Metric:
    try:
        return point.load()()
    except Exception as error:  # whatever importing another package's module raises
        return _Broken(point.name, f"{point.value}: {error}")


def make_metrics(names: str, settings: Mapping[str, Any]) -> list[Metric]:
    """The metrics of a list of names, separated by commas, or of `all`. `settings` are options for all
    metrics together; each takes `device` and those that its `settings` names. Raises ValueError for an
    unknown name; the message lists the known ones."""
    known = {
        name: EntryPoint(name, f"{__package__}.{place}", ENTRY_POINTS)
        for name, place in BUILT_IN.items()
    }
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        known.setdefault(point.name, point)
    wanted = list(filter(None, map(str.strip, names.split(","))))
    wanted = list(known) if wanted == ["all"] else wanted
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        found = f"no metric is called {', '.join(unknown)}" if unknown else "no metric is named"
        raise ValueError(f"--metrics: {found}; expected names from {', '.join(known)}")
    made = [_make(known[name]) for name in dict.fromkeys(wanted)]
    for metric in made:
        metric.device = settings.get("device", metric.device)
        metric.settings = {
            key: settings.get(key, default) for key, default in metric.settings.items()
        }
    return made
