"""Word and character error rates of what a speech recognizer hears."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.evaluation.metrics.metric import Column, Comparison, Metric, Recording
from fairseq_resynth.evaluation.metrics.packages import missing_packages, package_version
from fairseq_resynth.measures.text import NORMALIZER, error_rates, normalize

# maps (T,) samples at 16 kHz to their words, an empty string for none
Recognizer = Callable[[np.ndarray], str]
# kind of recognizer -> module that it imports, package that brings the module
PACKAGES = {
    "pocketsphinx": ("pocketsphinx", "pocketsphinx"),
    "whisper": ("faster_whisper", "faster-whisper"),
    "ctc": ("transformers", "transformers"),
}
# name of a normalizer -> module of the package whisper-normalizer, and class; "" for that of this package
NORMALIZERS = {
    "basic": "",
    "whisper-english": "english:EnglishTextNormalizer",
    "whisper-basic": "basic:BasicTextNormalizer",
}


class Intelligibility(Metric):
    """WER and CER against the transcript; dWER and dCER against the words recognized in the reference. Word
    errors / words of all utterances together, as NIST's sclite and the paper's Tables 1 and 2. The paper
    recognized with wav2vec 2.0; values of different recognizers do not compare with each other."""

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
    settings = {"recognizer": "pocketsphinx", "language": None, "normalizer": "basic"}
    measures_reference = True

    def missing(self) -> str:
        needed = dict([PACKAGES[parse_recognizer(self.settings["recognizer"])[0]]])
        if NORMALIZERS.get(self.settings["normalizer"]):
            needed["whisper_normalizer"] = "whisper-normalizer"
        return missing_packages(list(needed), " ".join(needed.values()))

    def version(self) -> str:
        recognizer, normalizer = self.settings["recognizer"], self.settings["normalizer"]
        module = PACKAGES[parse_recognizer(recognizer)[0]][0]
        package = f"{normalizer} (whisper-normalizer {package_version('whisper_normalizer')})"
        named = package if NORMALIZERS.get(normalizer) else NORMALIZER
        return f"{recognizer} ({module} {package_version(module)}), normalizer {named}"

    def prepare(self) -> None:
        normalizer, language = self.settings["normalizer"], self.settings["language"]
        if normalizer == "whisper-english" and language not in (None, "en"):
            raise ValueError(
                f"--normalizer whisper-english spells English, and --language is {language}: "
                "use whisper-basic"
            )
        load_normalizer(normalizer)
        self._recognizer()

    def _recognizer(self) -> Recognizer:
        return load_recognizer(self.settings["recognizer"], self.settings["language"], self.device)

    def _hear(self, recording: Recording) -> str:
        return recording.derive("heard", self._recognizer())

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The error rates, their counts, and the recognized words."""
        normalizer = load_normalizer(self.settings["normalizer"])
        heard = self._hear(comparison.generated)
        result: dict[str, Any] = {"heard": heard}
        if comparison.transcript is not None:
            result |= {"transcript": comparison.transcript}
            result |= error_rates(comparison.transcript, heard, normalizer)
            result["notes"] = [] if result["words"] else ["empty transcript"]
        if comparison.reference is not None:
            rates = error_rates(self._hear(comparison.reference), heard, normalizer)
            result |= {"dwer": rates["wer"], "dcer": rates["cer"]}
            result |= {"reference_" + key: rates[key] for key in ("words", "characters")}
        return result


def _pocketsphinx() -> Recognizer:
    """CMU PocketSphinx with the US English model of its package: weak, but it needs no network."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def transcribe(wav: np.ndarray) -> str:
        decoder.start_utt()
        samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    return transcribe


def _whisper(name: str, language: str | None, device: str) -> Recognizer:
    """OpenAI Whisper through CTranslate2, greedy and without the previous text as a prompt. `name` is a
    folder with `model.bin`, or a name such as base.en that faster-whisper downloads; `language` is an ISO
    code, detected for each utterance if it is None."""
    from faster_whisper import WhisperModel

    kind, _, index = device.partition(":")
    model = WhisperModel(name, kind, int(index or 0), compute_type="int8", cpu_threads=1)
    known = model.supported_languages
    if language and language not in known:
        raise ValueError(f"no language {language!r}, expected one of {', '.join(known)}")
    options = {"language": language, "beam_size": 1, "temperature": 0.0}

    def transcribe(wav: np.ndarray) -> str:
        wav = wav.astype(np.float32)
        segments, _ = model.transcribe(wav, condition_on_previous_text=False, **options)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def _ctc(name: str, device: str) -> Recognizer:
    """A CTC model of `transformers` (wav2vec 2.0 and similar), decoded greedily; a folder or a hub name."""
    import torch
    from transformers import AutoProcessor

    from fairseq_resynth.encoders.huggingface import load_pretrained

    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    model = load_pretrained("AutoModelForCTC", name).to(device)

    def transcribe(wav: np.ndarray) -> str:
        inputs = processor(wav, sampling_rate=SAMPLE_RATE, return_tensors="pt").to(device)
        with torch.inference_mode():
            return processor.batch_decode(model(**inputs).logits.argmax(-1))[0]

    return transcribe


def parse_recognizer(text: str) -> tuple[str, str]:
    """Splits `whisper:base.en`, `ctc:facebook/wav2vec2-base-960h` or `pocketsphinx` into kind and model.
    Raises ValueError for an unknown kind, a kind without its model, or a model for pocketsphinx."""
    kind, _, model = text.partition(":")
    if kind not in PACKAGES or bool(model) == (kind == "pocketsphinx"):
        expected = "pocketsphinx, whisper:NAME_OR_FOLDER or ctc:NAME_OR_FOLDER"
        raise ValueError(f"--recognizer {text!r}: expected {expected}")
    return kind, model


@functools.cache
def load_normalizer(name: str) -> Callable[[str], str]:
    """One of `NORMALIZERS`: `basic`, or those by which Whisper's word error rates are published (Radford et
    al., 2022), whose English one also spells numerals, contractions and American spelling alike. Raises
    ValueError for another name."""
    if name not in NORMALIZERS:
        raise ValueError(f"--normalizer {name!r}: expected one of {', '.join(NORMALIZERS)}")
    if not NORMALIZERS[name]:
        return normalize
    module, _, class_name = NORMALIZERS[name].partition(":")
    return getattr(importlib.import_module(f"whisper_normalizer.{module}"), class_name)()


@functools.cache
def load_recognizer(
    recognizer: str, language: str | None = None, device: str = "cpu"
) -> Recognizer:
    """Loads a recognizer once per process and device. Raises ValueError if it is unknown or cannot
    be loaded."""
    kind, model = parse_recognizer(recognizer)
    if kind == "pocketsphinx" and language not in (None, "en"):
        raise ValueError(
            f"--language {language}: pocketsphinx knows English only; use whisper:NAME"
        )
    if Path(model).is_absolute() and not Path(model).is_dir():  # else it may be a name on the hub
        raise ValueError(f"--recognizer {recognizer}: the folder {model} does not exist")
    try:
        if kind == "whisper":
            return _whisper(model, language, device)
        return _ctc(model, device) if kind == "ctc" else _pocketsphinx()
    # each package has its own errors for a model that is missing, and some fill a screen
    except Exception as error:
        reason = one_line(error)
        message = f"--recognizer {recognizer}: the model cannot be loaded: {reason}"
        raise ValueError(message) from error
