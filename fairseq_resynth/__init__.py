"""Speech resynthesis from discrete disentangled units (Polyak et al., Interspeech 2021) inside fairseq.

`fairseq-train DATA --user-dir fairseq_resynth --task unit_resynthesis` finds the tasks, models and
criterions of this package; `resynth` prepares data and synthesises; `Resynthesizer` is the Python way in.

Shape letters used in every docstring:
    B batch, U unit frames (50 or 100 Hz), F F0-code frames (12.5 Hz), N F0 frames (200 Hz),
    T samples (16 kHz), C channels, M mel frames.
"""

__version__ = "0.2.0"
__all__ = ["Resynthesizer"]


def __getattr__(name: str):
    # Imported on first use, so that `resynth manifest` does not wait for fairseq and torch.
    if name == "Resynthesizer":
        from fairseq_resynth.resynthesizer import Resynthesizer

        return Resynthesizer
    raise AttributeError(f"module 'fairseq_resynth' has no attribute {name!r}")
