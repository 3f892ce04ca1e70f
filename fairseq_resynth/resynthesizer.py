"""The public Python interface: speech to streams and back, in its own or another voice."""

from pathlib import Path

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.convert import Controls, Target, convert
from fairseq_resynth.inference.system import SpeechSystem


class Resynthesizer(SpeechSystem):
    """A unit vocoder with what makes its streams, and conversion between voices."""

    def convert(
        self,
        wav: np.ndarray | str | Path,
        target: Target | None = None,
        source: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        controls: Controls | None = None,
        speaker: str | None = None,
    ) -> np.ndarray:
        """Says an utterance in another voice; the pitch moves to that voice's statistics.

        Args:
            wav: (T,) float in [-1, 1], or a path.
            target: a speaker of the model; or, for a model on speaker vectors, one or more recordings of
                somebody else, a second or longer.
            source: who speaks, if the model knows the voice.
            sample_rate: of `wav` in Hz.
            controls: pitch, rate, durations and style; see `conversion.Controls`.
            speaker: a speaker of the model, another word for `target`.

        Returns:
            (T',) float32 at 16 kHz. `conversion.convert` also tells the streams and what to know of them.
        """
        if (target is None) == (speaker is None):
            raise ValueError("give the voice to speak with: target=… or speaker=…, one of the two.")
        wav = self.waveform(wav, sample_rate)
        return convert(self, wav, target if speaker is None else speaker, source, controls).wav
