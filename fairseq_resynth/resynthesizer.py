"""The public Python interface: speech to streams and back, in the same or another voice."""

from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.convert import Controls, Target, convert
from fairseq_resynth.inference.system import SpeechSystem


class Resynthesizer(SpeechSystem):
    """A unit vocoder with the encoders of its streams, and conversion between voices."""

    def convert(
        self,
        wav: np.ndarray | str | Path,
        target: Target | None = None,
        source: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        controls: Controls | None = None,
        speaker: str | None = None,
    ) -> np.ndarray:
        """Converts an utterance to another voice; its pitch moves to the F0 statistics of that voice.

        Args:
            wav: (T,) float in [-1, 1], or a path.
            target: a speaker of the model; or, for a model on speaker vectors, one or more recordings of
                anybody, of one second or more.
            source: who speaks in `wav`, if the model knows the voice.
            sample_rate: of `wav` in Hz.
            controls: changes of pitch, rate, durations and named tokens (style, language).
            speaker: a speaker of the model, instead of `target`.

        Returns (T',) float32 at 16 kHz; `conversion.convert.convert` returns the streams and notes as well.
        Raises FileNotFoundError or ValueError for an unknown voice, a bad recording or control, or a model
        without the stream that a control needs.
        """
        if (target is None) == (speaker is None):
            raise ValueError("give the target voice as either target=… or speaker=….")
        wav = self.waveform(wav, sample_rate)
        return convert(self, wav, target if speaker is None else speaker, source, controls).wav
