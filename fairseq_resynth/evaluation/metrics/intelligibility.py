"""Word and character error rates of what a recogniser hears."""

import functools
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_resynth.evaluation.metrics.metric import (
    Column,
    Metric,
    Recording,
    Utterance,
    importable,
    install_hint,
    package_version,
)
from fairseq_resynth.measures.text import NORMALISER, error_rates


class Intelligibility(Metric):
    """WER and CER against the transcript; dWER and dCER against what is heard in the reference.

    Word errors / words of all utterances together, as NIST's sclite and the paper's Tables 1 and 2.
    The paper recognised with wav2vec 2.0; figures of other recognisers compare with each other
    only.
    """

    def __init__(self) -> None:
        super().__init__(
            name="wer",
            columns=(
                Column("wer", "WER %", weight="words", digits=1, scale=100),
                Column("cer", "CER %", weight="characters", digits=1, scale=100),
                Column("dwer", "dWER %", weight="reference_words", digits=1, scale=100),
                Column("dcer", "dCER %", weight="reference_characters", digits=1, scale=100),
            ),
            predicts="words lost, as a recogniser hears them; against transcripts (WER, CER) and "
            "against the same recogniser on the reference (dWER, dCER)",
            settings={"recogniser": "pocketsphinx", "language": None},
            judges_reference=True,
        )

    def missing(self) -> str:
        """See `Metric`."""
        return missing_recogniser(self.settings["recogniser"])

    def version(self) -> str:
        """See `Metric`."""
        recogniser = self.settings["recogniser"]
        module = MODULES[parse_recogniser(recogniser)[0]]
        return f"{recogniser} ({module} {package_version(module)}), normaliser {NORMALISER}"

    def prepare(self) -> None:
        """See `Metric`: loads the recogniser."""
        load_recogniser(self.settings["recogniser"], self.settings["language"])

    def _hear(self, recording: Recording) -> str:
        recogniser = load_recogniser(self.settings["recogniser"], self.settings["language"])
        return recording.derive("heard", recogniser.transcribe)

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; also what was heard."""
        heard = self._hear(utterance.generated)
        result: dict[str, Any] = {"heard": heard}
        if utterance.transcript is not None:
            result |= {"transcript": utterance.transcript}
            result |= error_rates(utterance.transcript, heard)
            result["notes"] = [] if result["words"] else ["empty transcript"]
        if utterance.reference is not None:
            rates = error_rates(self._hear(utterance.reference), heard)
            result |= {"dwer": rates["wer"], "dcer": rates["cer"]}
            result |= {"reference_" + key: rates[key] for key in ("words", "characters")}
        return result


INSTALL = {
    "pocketsphinx": "pocketsphinx",
    "whisper": "faster-whisper",
    "ctc": "transformers",
}
MODULES = {"pocketsphinx": "pocketsphinx", "whisper": "faster_whisper", "ctc": "transformers"}


class Recogniser(Protocol):
    """Hears words."""

    def transcribe(self, wav: np.ndarray) -> str:
        """Returns the words of (T,) samples at 16 kHz, an empty string for none."""


class Pocketsphinx:
    """CMU PocketSphinx with the US English model that its package holds. Weak, but needs no
    network.
    """

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=16000, loglevel="FATAL")

    def transcribe(self, wav: np.ndarray) -> str:
        """See `Recogniser`."""
        samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""


class FasterWhisper:
    """OpenAI Whisper through CTranslate2, greedy and without the previous text as a prompt.

    Args:
        model: a folder with `model.bin`, or a name such as base.en that faster-whisper downloads.
        language: ISO code; None: Whisper guesses it for each utterance.
    """

    def __init__(self, model: str, language: str | None = None) -> None:
        from faster_whisper import WhisperModel

        self._language = language
        self._model = WhisperModel(model, device="auto", compute_type="int8", cpu_threads=1)
        known = self._model.supported_languages
        if language and language not in known:
            raise ValueError(f"no language {language!r}, expected one of {', '.join(known)}")

    def transcribe(self, wav: np.ndarray) -> str:
        """See `Recogniser`."""
        segments, _ = self._model.transcribe(
            wav.astype(np.float32),
            language=self._language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments)


class HuggingFaceCtc:
    """Any CTC model of `transformers` (wav2vec 2.0 and its kin), decoded greedily.

    Args:
        model: a folder, or a name on the hub.
    """

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCTC, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(model)
        self._model = AutoModelForCTC.from_pretrained(model).eval()

    def transcribe(self, wav: np.ndarray) -> str:
        """See `Recogniser`."""
        import torch

        inputs = self._processor(wav, sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            tokens = self._model(**inputs).logits.argmax(-1)
        return self._processor.batch_decode(tokens)[0]


def parse_recogniser(text: str) -> tuple[str, str]:
    """Splits `whisper:base.en`, `ctc:facebook/wav2vec2-base-960h` or `pocketsphinx`.

    Returns:
        The kind and the model.

    Raises:
        ValueError: an unknown kind, or a model where none belongs.
    """
    kind, _, model = text.partition(":")
    if kind not in MODULES or bool(model) == (kind == "pocketsphinx"):
        raise ValueError(
            f"--recogniser {text!r}: expected pocketsphinx, whisper:NAME_OR_FOLDER or "
            "ctc:NAME_OR_FOLDER"
        )
    return kind, model


def missing_recogniser(text: str) -> str:
    """Returns what to install for a recogniser, or an empty string."""
    kind, _ = parse_recogniser(text)
    if importable(MODULES[kind]):
        return ""
    return install_hint([MODULES[kind]], INSTALL[kind])


@functools.cache
def load_recogniser(text: str, language: str | None = None) -> Recogniser:
    """Loads a recogniser once a process.

    Raises:
        ValueError: see `parse_recogniser`; or the model cannot be loaded.
    """
    kind, model = parse_recogniser(text)
    if kind == "pocketsphinx" and language not in (None, "en"):
        raise ValueError(
            f"--language {language}: pocketsphinx knows English only; use whisper:NAME"
        )
    if Path(model).is_absolute() and not Path(model).is_dir():  # else it may be a name on the hub
        raise ValueError(f"--recogniser {text}: the folder {model} does not exist")
    try:
        if kind == "whisper":
            return FasterWhisper(model, language)
        return HuggingFaceCtc(model) if kind == "ctc" else Pocketsphinx()
    # each package has errors of its own for a model that is not there, and some fill a screen
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"--recogniser {text}: the model cannot be loaded: {reason}") from error
