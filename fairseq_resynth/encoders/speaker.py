"""Speaker encoders: a waveform to a vector of length 1 that identifies the voice."""

import functools
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.data.storage.files import file_hash, unpacked_size
from fairseq_resynth.data.storage.messages import one_line, shown

# kind of encoder: the package that it needs
MODULES = {
    "resemblyzer": "resemblyzer",
    "xvector": "transformers",
    "torchscript": "torch",
    "onnx": "onnxruntime",
    "torchscript-fbank": "torch",
    "onnx-fbank": "onnxruntime",
}
SILENT = 1e-4  # peak of a waveform that counts as silence
MINIMUM_SECONDS = 0.4  # of voice; vectors of less are not reliable


class SpeakerEncoder(Protocol):
    """Maps a waveform to a vector of the voice."""

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Maps (T,) samples at 16 kHz to (D,) of length 1. Raises ValueError for silence or too few."""


class Resemblyzer:
    """Resemblyzer's d-vectors of 256 numbers, trained with GE2E (Wan et al., 2018) as the paper's encoder."""

    def __init__(self, device: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its webrtcvad imports the deprecated pkg_resources
            from resemblyzer import VoiceEncoder, preprocess_wav

        self._encoder, self._trim = VoiceEncoder(device, verbose=False), preprocess_wav

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Maps (T,) samples to (256,); long pauses are removed as in the package's own examples."""
        voiced = self._trim(_require_sound(wav), source_sr=SAMPLE_RATE)
        if len(voiced) < MINIMUM_SECONDS * SAMPLE_RATE:
            raise ValueError(
                f"{len(voiced) / SAMPLE_RATE:.2f} s of voice: too little to tell the speaker"
            )
        return self._encoder.embed_utterance(voiced)


class HuggingFaceXVector:
    """Any x-vector model of transformers, for instance microsoft/wavlm-base-plus-sv."""

    def __init__(self, model: str, device: str) -> None:
        from transformers import AutoFeatureExtractor

        from fairseq_resynth.encoders.huggingface import load_pretrained

        self._extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False)
        self._model = load_pretrained("AutoModelForAudioXVector", model).to(device)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Maps (T,) samples to (D,), as `SpeakerEncoder` says."""
        import torch

        inputs = self._extractor(wav, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        inputs = inputs.to(self._model.device)
        with torch.inference_mode():
            vector = self._model(**inputs).embeddings[0].cpu().numpy()
        return vector / np.linalg.norm(vector)


def filter_banks(wav: np.ndarray) -> np.ndarray:
    """Log-mel filter banks (1, frames, 80) of (T,) samples at 16 kHz, with mean 0 over time: Kaldi's, of 25
    ms Hamming windows every 10 ms without dither, as WeSpeaker's encoders need them (Wang et al., 2023)."""
    import torch
    from torchaudio.compliance.kaldi import fbank

    if len(wav) < 400:
        raise ValueError(f"{len(wav) / SAMPLE_RATE:.3f} s are too short for a frame")
    scaled = torch.from_numpy(wav)[None] * (1 << 15)
    banks = fbank(scaled, num_mel_bins=80, window_type="hamming", dither=0.0)
    return (banks - banks.mean(0))[None].numpy()


class ModelFile:
    """An encoder in a file, for instance ECAPA-TDNN: TorchScript, or ONNX with one float32 input. `prepare`
    maps (T,) samples to the input, (1, T) or `filter_banks`; the first output is (1, D). Such a file is a
    program, which runs: damage is noticed, but it must come from somebody who is trusted."""

    def __init__(
        self, path: str, is_onnx: bool, prepare: Callable[[np.ndarray], np.ndarray], device: str
    ) -> None:
        self._prepare = prepare
        if is_onnx:
            import onnxruntime

            session = onnxruntime.InferenceSession(path, providers=_onnx_providers(device))
            name = session.get_inputs()[0].name
            self._run = lambda inputs: session.run(None, {name: inputs})[0]
        else:
            import torch

            _require_whole(path)
            model = torch.jit.load(path, map_location=device).eval()
            run = lambda x: model(torch.from_numpy(x).to(device)).cpu().numpy()  # noqa: E731
            self._run = torch.inference_mode()(run)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Maps (T,) samples to (D,), as `SpeakerEncoder` says."""
        output = self._run(self._prepare(_require_sound(wav)))
        vector = np.asarray(output, dtype=np.float32)
        if vector.ndim == 3 and 1 in vector.shape[1:]:  # exported with (1, 1, D) or (1, D, 1)
            vector = vector.reshape(len(vector), -1)
        found = vector.shape
        if len(found) != 2 or found[0] != 1 or not np.isfinite(vector).all() or not vector.any():
            raise ValueError(
                f"the speaker encoder gave {found}, expected (1, D) finite numbers that are not all 0"
            )
        return vector[0] / np.linalg.norm(vector[0])


def _require_whole(path: str) -> None:
    """Raises ValueError if a TorchScript file is not what was written, by the checksums of its members, so
    that torch's C++ gets no damaged bytes."""
    # Only the code of a model is compressed.
    if unpacked_size(path) > 20 * Path(path).stat().st_size + (1 << 24):
        raise ValueError("it would unpack to far more bytes than the file has")
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is damaged")


def _onnx_providers(device: str) -> list[Any]:
    """What onnxruntime runs a model on; raises ValueError if it was built without that."""
    import onnxruntime

    kind, _, index = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ValueError(
            f"this onnxruntime cannot use {device}: pip install onnxruntime-gpu, or use --device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]


def _require_sound(wav: np.ndarray) -> np.ndarray:
    if not np.abs(wav).max(initial=0) > SILENT:
        raise ValueError("silence has no speaker")
    return np.ascontiguousarray(wav, dtype=np.float32)


def parse_encoder(text: str) -> tuple[str, str]:
    """Splits `resemblyzer`, `xvector:NAME_OR_FOLDER`, `torchscript[-fbank]:FILE` or `onnx[-fbank]:FILE` into
    the kind and the model, empty for `resemblyzer`. Raises ValueError for anything else."""
    kind, _, model = text.partition(":")
    if kind not in MODULES or bool(model) == (kind == "resemblyzer"):
        raise ValueError(
            f"speaker encoder {text!r}: expected resemblyzer, xvector:NAME_OR_FOLDER, "
            "torchscript:FILE or onnx:FILE on samples, torchscript-fbank:FILE or onnx-fbank:FILE on filter "
            "banks"
        )
    return kind, model


@functools.cache
def load_encoder(text: str, device: str = "cpu") -> SpeakerEncoder:
    """Loads the speaker encoder of a text for `parse_encoder`, once per process and device. Raises
    FileNotFoundError if the model file does not exist, and ValueError if the model cannot be loaded."""
    kind, model = parse_encoder(text)
    if kind.startswith(("torchscript", "onnx")) and not Path(model).is_file():
        raise FileNotFoundError(f"speaker encoder {text}: {model} does not exist")
    try:
        if kind == "resemblyzer":
            return Resemblyzer(device)
        if kind == "xvector":
            return HuggingFaceXVector(model, device)
        prepare = filter_banks if kind.endswith("-fbank") else lambda wav: wav[None]
        return ModelFile(model, kind.startswith("onnx"), prepare, device)
    except ImportError as error:
        package = "resemblyzer 'setuptools<81'" if kind == "resemblyzer" else MODULES[kind]
        raise ValueError(
            f"speaker encoder {text}: {error}. Run `pip install {package}`."
        ) from error
    except Exception as error:  # onnxruntime's classes of errors have no common base
        raise ValueError(f"speaker encoder {text}: cannot be loaded: {one_line(error)}") from error


def describe_encoder(text: str, device: str = "cpu") -> dict[str, Any]:
    """The description of an encoder in `speaker_vectors.json`: `encoder`, `speaker_dim` and `encoder_hash`,
    which must be the same for vectors to be comparable. Raises as `load_encoder`, and ValueError if the model
    does not accept its input."""
    kind, model = parse_encoder(text)
    encoder = load_encoder(text, device)
    if kind == "resemblyzer":
        return {"encoder": text, "encoder_hash": version("resemblyzer"), "speaker_dim": 256}
    probe = 0.1 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    digest = file_hash(model) if Path(model).is_file() else model
    try:
        return {"encoder": text, "encoder_hash": digest, "speaker_dim": len(encoder.embed(probe))}
    except Exception as error:  # the model's own code may raise anything
        inputs = "filter banks (1, frames, 80)" if kind.endswith("fbank") else "samples (1, T)"
        reason = shown(str(error).strip().rpartition("\n")[2], 200)
        raise ValueError(
            f"speaker encoder {text}: it does not take {inputs}: {reason}. For models on filter banks write "
            "torchscript-fbank:FILE or onnx-fbank:FILE."
        ) from error


def embed_file(path: Path, encoder: str, device: str = "cpu") -> np.ndarray | str:
    """The vector (D,) of an audio file, or the reason why it has none as text."""
    try:
        return load_encoder(encoder, device).embed(resample(*load_any_audio(path)))
    except Exception as error:  # onnxruntime's classes of errors have no common base
        return one_line(error)
