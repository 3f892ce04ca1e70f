"""The built-in metrics, in the order of the report."""

from fairseq_resynth.evaluation.intelligibility import Intelligibility
from fairseq_resynth.evaluation.quality import DistillMos, Dnsmos, Pesq, Stoi, Utmos
from fairseq_resynth.evaluation.signal_metrics import (
    F0,
    Level,
    MelCepstralDistortion,
    MelL1,
    MultiResolutionStft,
)
from fairseq_resynth.evaluation.speaker import Speaker
from fairseq_resynth.evaluation.unit_metrics import Rate, Speed, Units

BUILT_IN = (
    F0,
    MelL1,
    MelCepstralDistortion,
    MultiResolutionStft,
    Intelligibility,
    Speaker,
    Dnsmos,
    DistillMos,
    Utmos,
    Pesq,
    Stoi,
    Units,
    Rate,
    Speed,
    Level,
)
