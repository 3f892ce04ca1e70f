"""Speaker encoders: a voice to a vector of length 1."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample
from fairseq_resynth.data.storage.files import file_hash

# kind -> the package that it needs
MODULES = {
    "resemblyzer": "resemblyzer",
    "xvector": "transformers",
    "torchscript": "torch",
    "onnx": "onnxruntime",
    "torchscript-fbank": "torch",
    "onnx-fbank": "onnxruntime",
}
MEL_BINS, FRAME = 80, 400  # a frame in samples
SILENT = 1e-4  # largest sample
MINIMUM_SECONDS = 0.4  # shorter speech gives no vector worth a score


class SpeakerEncoder(Protocol):
    """Maps a voice to a vector."""

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Returns (D,) float32 of length 1 from (T,) samples at 16 kHz."""


class Resemblyzer:
    """Resemblyzer's d-vector, 256 numbers: GE2E (Wan et al., 2018), as the paper's kind of encoder."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its webrtcvad imports the deprecated pkg_resources
            from resemblyzer import VoiceEncoder

        self._encoder = VoiceEncoder("cpu", verbose=False)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """See `SpeakerEncoder`; long pauses are cut as its package does."""
        from resemblyzer import preprocess_wav

        if not np.abs(wav).max() > SILENT:
            raise ValueError("silence has no speaker")
        voiced = preprocess_wav(wav.astype(np.float32), source_sr=SAMPLE_RATE)
        if len(voiced) < MINIMUM_SECONDS * SAMPLE_RATE:
            raise ValueError(
                f"{len(voiced) / SAMPLE_RATE:.2f} s of voice: too little to tell the speaker"
            )
        return self._encoder.embed_utterance(voiced)


class HuggingFaceXVector:
    """Any x-vector model of `transformers`, microsoft/wavlm-base-plus-sv for instance.

    Args:
        model: a folder, or a name on the hub.
    """

    def __init__(self, model: str) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        self._extractor = AutoFeatureExtractor.from_pretrained(model)
        self._model = AutoModelForAudioXVector.from_pretrained(model).eval()

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """See `SpeakerEncoder`."""
        import torch

        inputs = self._extractor(wav, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.inference_mode():
            vector = self._model(**inputs).embeddings[0].numpy()
        return vector / np.linalg.norm(vector)


def filter_banks(wav: np.ndarray) -> np.ndarray:
    """Returns (1, frames, 80) log-mel filter banks with their mean over time taken away.

    Kaldi's, of 25 ms Hamming windows every 10 ms without dither, as WeSpeaker's encoders take them (Wang et
    al., 2023).

    Args:
        wav: (T,) float32 at 16 kHz.
    """
    import torch
    from torchaudio.compliance.kaldi import fbank

    if len(wav) < FRAME:
        raise ValueError(f"{len(wav) / SAMPLE_RATE:.3f} s are too short for a frame")
    scaled = torch.from_numpy(wav)[None] * (1 << 15)
    banks = fbank(scaled, num_mel_bins=MEL_BINS, window_type="hamming", dither=0.0)
    return (banks - banks.mean(0))[None].numpy()


def _samples(wav: np.ndarray) -> np.ndarray:
    return wav[None]


class TorchScriptEncoder:
    """Any encoder as TorchScript (ECAPA-TDNN for instance) that maps what it listens to to (1, D).

    Args:
        path: of the file.
        listen: (T,) samples at 16 kHz to the model's input: (1, T) samples or `filter_banks`.
    """

    def __init__(self, path: str, listen: Callable[[np.ndarray], np.ndarray] = _samples) -> None:
        import torch

        self._listen = listen
        self._model = torch.jit.load(path, map_location="cpu").eval()

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """See `SpeakerEncoder`."""
        import torch

        with torch.inference_mode():
            heard = torch.from_numpy(self._listen(_audible(wav)))
            return _unit_vector(self._model(heard).numpy())


class OnnxEncoder:
    """Any encoder as ONNX of one float32 input, whose first output is (1, D); see `TorchScriptEncoder`.

    Args:
        path: of the file.
        listen: (T,) samples at 16 kHz to the model's input.
    """

    def __init__(self, path: str, listen: Callable[[np.ndarray], np.ndarray] = _samples) -> None:
        import onnxruntime

        self._listen = listen
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """See `SpeakerEncoder`."""
        name = self._session.get_inputs()[0].name
        return _unit_vector(self._session.run(None, {name: self._listen(_audible(wav))})[0])


def _audible(wav: np.ndarray) -> np.ndarray:
    if not np.abs(wav).max(initial=0) > SILENT:
        raise ValueError("silence has no speaker")
    return np.ascontiguousarray(wav, dtype=np.float32)


def _unit_vector(output: np.ndarray) -> np.ndarray:
    vector = np.asarray(output, dtype=np.float32)
    if vector.ndim == 3 and 1 in vector.shape[1:]:  # (1, 1, D) or (1, D, 1), as some are exported
        vector = vector.reshape(len(vector), -1)
    if vector.ndim != 2 or len(vector) != 1 or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(
            f"the speaker encoder gave {vector.shape}, expected (1, D) finite numbers that are not all 0"
        )
    return vector[0] / np.linalg.norm(vector[0])


def parse_encoder(text: str) -> tuple[str, str]:
    """Splits `resemblyzer`, `xvector:NAME_OR_FOLDER`, `torchscript[-fbank]:FILE` or `onnx[-fbank]:FILE`.

    Raises:
        ValueError: an unknown kind, or a model where none belongs.
    """
    kind, _, model = text.partition(":")
    if kind not in MODULES or bool(model) == (kind == "resemblyzer"):
        raise ValueError(
            f"speaker encoder {text!r}: expected resemblyzer, xvector:NAME_OR_FOLDER, "
            "torchscript:FILE or onnx:FILE on samples, torchscript-fbank:FILE or onnx-fbank:FILE on filter "
            "banks"
        )
    return kind, model


@functools.cache
def load_encoder(text: str) -> SpeakerEncoder:
    """Loads a speaker encoder once a process.

    Raises:
        FileNotFoundError: no such model file.
        ValueError: see `parse_encoder`; or the model cannot be loaded.
    """
    kind, model = parse_encoder(text)
    if kind.startswith(("torchscript", "onnx")) and not Path(model).is_file():
        raise FileNotFoundError(f"speaker encoder {text}: {model} does not exist")
    classes = {
        "xvector": HuggingFaceXVector,
        "torchscript": TorchScriptEncoder,
        "onnx": OnnxEncoder,
        "torchscript-fbank": functools.partial(TorchScriptEncoder, listen=filter_banks),
        "onnx-fbank": functools.partial(OnnxEncoder, listen=filter_banks),
    }
    try:
        return classes[kind](model) if model else Resemblyzer()
    except ImportError as error:
        package = "resemblyzer 'setuptools<81'" if kind == "resemblyzer" else MODULES[kind]
        raise ValueError(
            f"speaker encoder {text}: {error}. Run `pip install {package}`."
        ) from error
    except Exception as error:  # onnxruntime's own classes share no base of theirs
        raise ValueError(f"speaker encoder {text}: cannot be loaded: {error}") from error


def describe_encoder(text: str) -> dict[str, Any]:
    """Returns what `speaker_vectors.json` says of an encoder: `encoder`, `encoder_hash` and `speaker_dim`.

    Vectors of encoders whose `encoder_hash` differs must not be mixed.
    """
    kind, model = parse_encoder(text)
    encoder = load_encoder(text)
    if kind == "resemblyzer":
        from importlib.metadata import version

        return {"encoder": text, "encoder_hash": version("resemblyzer"), "speaker_dim": 256}
    probe = 0.1 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    digest = file_hash(model) if Path(model).is_file() else model
    try:
        return {"encoder": text, "encoder_hash": digest, "speaker_dim": len(encoder.embed(probe))}
    except Exception as error:  # whatever the model's own code raises
        heard = "filter banks (1, frames, 80)" if kind.endswith("fbank") else "samples (1, T)"
        reason = str(error).strip().split("\n")[-1][:200]
        raise ValueError(
            f"speaker encoder {text}: it does not take {heard}: {reason}. Models on filter banks are named "
            "torchscript-fbank:FILE or onnx-fbank:FILE."
        ) from error


def embed_file(path: Path, encoder: str) -> np.ndarray | str:
    """Returns the vector of a whole audio file, or the reason why there is none."""
    try:
        return load_encoder(encoder).embed(resample(*load_any_audio(path)))
    except (ValueError, OSError, RuntimeError) as error:
        return str(error)
