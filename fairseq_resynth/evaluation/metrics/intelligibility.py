"""Word and character error rates of what a speech recognizer hears."""

import functools
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.evaluation.metrics.metric import (
    Column,
    Comparison,
    Metric,
    Recording,
    missing_packages,
    package_version,
)
from fairseq_resynth.measures.text import NORMALIZER, error_rates

# kind of recognizer -> module that it imports, package that brings the module
PACKAGES = {
    "pocketsphinx": ("pocketsphinx", "pocketsphinx"),
    "whisper": ("faster_whisper", "faster-whisper"),
    "ctc": ("transformers", "transformers"),
}


class Intelligibility(Metric):
    """WER and CER against the transcript; dWER and dCER against the words recognized in the reference.

    Word errors / words of all utterances together, as NIST's sclite and the paper's Tables 1 and 2. The paper
    recognized with wav2vec 2.0; values of different recognizers do not compare with each other.
    """

    name = "wer"
    columns = (
        Column("wer", "WER %", weight="words", digits=1, scale=100),
        Column("cer", "CER %", weight="characters", digits=1, scale=100),
        Column("dwer", "dWER %", weight="reference_words", digits=1, scale=100),
        Column("dcer", "dCER %", weight="reference_characters", digits=1, scale=100),
    )
    predicts = (
        "words lost, as a speech recognizer hears them; against transcripts (WER, CER) and against the same "
        "recognizer on the reference (dWER, dCER)"
    )
    settings = {"recognizer": "pocketsphinx", "language": None}
    measures_reference = True

    def missing(self) -> str:
        module, package = PACKAGES[parse_recognizer(self.settings["recognizer"])[0]]
        return missing_packages([module], package)

    def version(self) -> str:
        recognizer = self.settings["recognizer"]
        module = PACKAGES[parse_recognizer(recognizer)[0]][0]
        return f"{recognizer} ({module} {package_version(module)}), normalizer {NORMALIZER}"

    def prepare(self) -> None:
        load_recognizer(**self.settings)

    def _hear(self, recording: Recording) -> str:
        return recording.derive("heard", load_recognizer(**self.settings).transcribe)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The error rates, their counts, and the recognized words."""
        heard = self._hear(comparison.generated)
        result: dict[str, Any] = {"heard": heard}
        if comparison.transcript is not None:
            result |= {"transcript": comparison.transcript}
            result |= error_rates(comparison.transcript, heard)
            result["notes"] = [] if result["words"] else ["empty transcript"]
        if comparison.reference is not None:
            rates = error_rates(self._hear(comparison.reference), heard)
            result |= {"dwer": rates["wer"], "dcer": rates["cer"]}
            result |= {"reference_" + key: rates[key] for key in ("words", "characters")}
        return result


class Recognizer(Protocol):
    """A speech recognizer."""

    def transcribe(self, wav: np.ndarray) -> str:
        """The words of (T,) samples at 16 kHz, an empty string for none."""


class Pocketsphinx:
    """CMU PocketSphinx with the US English model of its package: weak, but it needs no network."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def transcribe(self, wav: np.ndarray) -> str:
        samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""


class FasterWhisper:
    """OpenAI Whisper through CTranslate2, greedy and without the previous text as a prompt.

    `model` is a folder with `model.bin`, or a name such as base.en that faster-whisper downloads;
    `language` is an ISO code, detected for each utterance if it is None.
    """

    def __init__(self, model: str, language: str | None = None) -> None:
        from faster_whisper import WhisperModel

        self._language = language
        self._model = WhisperModel(model, device="auto", compute_type="int8", cpu_threads=1)
        known = self._model.supported_languages
        if language and language not in known:
            raise ValueError(f"no language {language!r}, expected one of {', '.join(known)}")

    def transcribe(self, wav: np.ndarray) -> str:
        segments, _ = self._model.transcribe(
            wav.astype(np.float32),
            language=self._language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments)


class HuggingFaceCtc:
    """A CTC model of `transformers` (wav2vec 2.0 and similar), decoded greedily; a folder or a hub name."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCTC, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(model)
        self._model = AutoModelForCTC.from_pretrained(model).eval()

    def transcribe(self, wav: np.ndarray) -> str:
        import torch

        inputs = self._processor(wav, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.inference_mode():
            tokens = self._model(**inputs).logits.argmax(-1)
        return self._processor.batch_decode(tokens)[0]


def parse_recognizer(text: str) -> tuple[str, str]:
    """Splits `whisper:base.en`, `ctc:facebook/wav2vec2-base-960h` or `pocketsphinx` into kind and
    model.

    Raises ValueError for an unknown kind, a kind without its model, or a model for pocketsphinx.
    """
    kind, _, model = text.partition(":")
    if kind not in PACKAGES or bool(model) == (kind == "pocketsphinx"):
        raise ValueError(
            f"--recognizer {text!r}: expected pocketsphinx, whisper:NAME_OR_FOLDER or "
            "ctc:NAME_OR_FOLDER"
        )
    return kind, model


@functools.cache
def load_recognizer(recognizer: str, language: str | None = None) -> Recognizer:
    """Loads a recognizer once per process. Raises ValueError if it is unknown or cannot be loaded."""
    kind, model = parse_recognizer(recognizer)
    if kind == "pocketsphinx" and language not in (None, "en"):
        raise ValueError(
            f"--language {language}: pocketsphinx knows English only; use whisper:NAME"
        )
    if Path(model).is_absolute() and not Path(model).is_dir():  # else it may be a name on the hub
        raise ValueError(f"--recognizer {recognizer}: the folder {model} does not exist")
    try:
        if kind == "whisper":
            return FasterWhisper(model, language)
        return HuggingFaceCtc(model) if kind == "ctc" else Pocketsphinx()
    # each package has its own errors for a model that is missing, and some fill a screen
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"--recognizer {recognizer}: the model cannot be loaded: {reason}"
        ) from error
