"""Speaker encoders: a voice to a vector of length 1."""

import functools
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_resynth.data.audio import SAMPLE_RATE, load_any_audio, resample
from fairseq_resynth.data.files import file_hash

# kind -> the package that it needs
MODULES = {
    "resemblyzer": "resemblyzer",
    "xvector": "transformers",
    "torchscript": "torch",
    "onnx": "onnxruntime",
}
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


class TorchScriptEncoder:
    """Any encoder as TorchScript (ECAPA-TDNN for instance) that maps (1, T) at 16 kHz to (1, D).

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        import torch

        self._model = torch.jit.load(path, map_location="cpu").eval()

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """See `SpeakerEncoder`."""
        import torch

        with torch.inference_mode():
            return _unit_vector(self._model(torch.from_numpy(_audible(wav))[None]).numpy())


class OnnxEncoder:
    """Any encoder as ONNX whose one input is (1, T) float32 at 16 kHz and whose first output is (1, D).

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """See `SpeakerEncoder`."""
        name = self._session.get_inputs()[0].name
        return _unit_vector(self._session.run(None, {name: _audible(wav)[None]})[0])


def _audible(wav: np.ndarray) -> np.ndarray:
    if not np.abs(wav).max(initial=0) > SILENT:
        raise ValueError("silence has no speaker")
    return np.ascontiguousarray(wav, dtype=np.float32)


def _unit_vector(output: np.ndarray) -> np.ndarray:
    vector = np.asarray(output, dtype=np.float32)
    if vector.ndim != 2 or len(vector) != 1 or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(
            f"the speaker encoder gave {vector.shape}, expected (1, D) finite numbers that are not all 0"
        )
    return vector[0] / np.linalg.norm(vector[0])


def parse_encoder(text: str) -> tuple[str, str]:
    """Splits `resemblyzer`, `xvector:NAME_OR_FOLDER`, `torchscript:FILE` or `onnx:FILE`.

    Raises:
        ValueError: an unknown kind, or a model where none belongs.
    """
    kind, _, model = text.partition(":")
    if kind not in MODULES or bool(model) == (kind == "resemblyzer"):
        raise ValueError(
            f"speaker encoder {text!r}: expected resemblyzer, xvector:NAME_OR_FOLDER, "
            "torchscript:FILE or onnx:FILE"
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
    if kind in ("torchscript", "onnx") and not Path(model).is_file():
        raise FileNotFoundError(f"speaker encoder {text}: {model} does not exist")
    classes = {
        "xvector": HuggingFaceXVector,
        "torchscript": TorchScriptEncoder,
        "onnx": OnnxEncoder,
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
    return {"encoder": text, "encoder_hash": digest, "speaker_dim": len(encoder.embed(probe))}


def embed_file(path: Path, encoder: str) -> np.ndarray | str:
    """Returns the vector of a whole audio file, or the reason why there is none."""
    try:
        return load_encoder(encoder).embed(resample(*load_any_audio(path)))
    except (ValueError, OSError, RuntimeError) as error:
        return str(error)
