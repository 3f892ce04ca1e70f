"""Content encoders of Hugging Face: HuBERT, wav2vec 2.0, WavLM, data2vec and Whisper's encoder."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.data.storage.checkpoints import quiet
from fairseq_resynth.data.storage.messages import first_names, one_line
from fairseq_resynth.encoders.frames import (
    MOST_LAYERS,
    ConvolutionTransformer,
    Device,
    FrameEncoder,
)

# Weights that only a training needs, or that some versions of transformers miss by mistake.
_NOT_NEEDED = re.compile(r"masked_spec_embed|objective|original\d")


def build_huggingface(path: str | Path, layer: int, device: Device = "cpu") -> FrameEncoder:
    """Builds the encoder for a model of transformers, in a local folder or on the hub, from the output of
    `layer` blocks before any final normalization: `hidden_states[layer]`. Raises ValueError if transformers
    is not installed, or the model cannot be loaded, is of another kind or has no such layer."""
    model = _load(path)
    if model.config.model_type == "whisper":
        return WhisperEncoder(model.get_encoder(), path, layer, device)
    parts = ("feature_extractor", "feature_projection", "encoder")
    if not all(hasattr(model, part) for part in parts):
        raise ValueError(
            f"{path} is a {model.config.model_type} model, expected one that encodes waveforms: hubert, "
            "wav2vec2, wavlm, data2vec-audio or whisper"
        )
    return HuggingFaceEncoder(model, path, layer, device)


def _load(path: str | Path) -> Any:
    try:
        return load_pretrained("AutoModel", path)
    except ImportError as error:
        raise ValueError(
            "--feature-type hf needs transformers: pip install 'fairseq_resynth[hf]'"
        ) from error


def load_pretrained(auto_class: str, path: str | Path) -> Any:
    """Loads a model by a class of transformers, such as AutoModel, from a local folder or the hub, in
    evaluation mode and without running code that comes with it. Raises ImportError without transformers, and
    ValueError if the model cannot be loaded, or lacks weights, which transformers would draw at random."""
    import transformers

    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(str(path), trust_remote_code=False)
            for name, value in config.to_dict().items():
                if name.endswith("_layers") and isinstance(value, int) and value > MOST_LAYERS:
                    raise ValueError(f"{name} is {value}, expected up to {MOST_LAYERS}")
                if name.endswith("_heads") and isinstance(value, int) and value < 1:
                    raise ValueError(f"{name} is {value}, expected 1 or more")
            load = getattr(transformers, auto_class).from_pretrained
            settings = {"config": config, "trust_remote_code": False, "output_loading_info": True}
            model, found = load(str(path), **settings)
        if missing := sorted(k for k in found["missing_keys"] if not _NOT_NEEDED.search(k)):
            raise ValueError(f"its weights lack {first_names(missing, 5)}")
        # safetensors maps the file, and the process would crash if another program overwrote it.
        for weights in (*model.parameters(), *model.buffers()):
            weights.data = weights.data.clone()
        return model.eval()
    except Exception as error:  # transformers raises many kinds of errors for a malformed folder
        raise ValueError(
            f"{path} cannot be loaded as a model of transformers: {one_line(error)}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _weights_hash(model: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of names and weights, independent of the files they came from.
    k-means files record this value, so it must not change."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


class _TransformersModel(FrameEncoder):
    """A model of transformers, identified by its weights and by the name of its folder or on the hub."""

    feature_type = "hf"

    def _identify(self, path: str | Path, model: Any) -> None:
        self._name = Path(path).resolve().name if Path(path).is_dir() else str(path)
        self._hash = _weights_hash(model)

    def description(self) -> dict[str, Any]:
        """The identity of these features, with the name of the folder or on the hub as the checkpoint."""
        return super().description() | {"checkpoint": self._name, "checkpoint_hash": self._hash}


class HuggingFaceEncoder(_TransformersModel, ConvolutionTransformer):
    """HuBERT, wav2vec 2.0, WavLM, data2vec: models with convolutions over the waveform.

    Waveforms are normalized if the folder's preprocessor_config.json says so. Without that file they are
    normalized if the convolutions use layer normalization, since fairseq trained those models that way.
    """

    def __init__(self, model, path: str | Path, layer: int, device: Device = "cpu", **chunks: int):
        self._identify(path, model)
        self.masks_padding = model.config.model_type in ("hubert", "wav2vec2", "wavlm")
        super().__init__(model, path, layer, _needs_normalized(path, model), device, **chunks)
        self._output: Tensor
        model.encoder.layers[layer - 1].register_forward_hook(self._keep_output)
        del model.encoder.layers[layer:]  # their output is not needed
        self._require_runs(path)

    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        x = self.model.feature_projection(frames)
        x = x[0] if isinstance(x, tuple) else x
        self.model.encoder(x, attention_mask=None if padding is None else ~padding)
        return self._output

    def _keep_output(self, block: Any, args: tuple, output: Tensor | tuple) -> None:
        # The encoder's own output has the final normalization, which hidden_states[layer] has not.
        self._output = output[0] if isinstance(output, tuple) else output


def _needs_normalized(path: str | Path, model: Any) -> bool:
    from transformers import AutoFeatureExtractor

    file = Path(path) / "preprocessor_config.json"
    try:
        extractor = AutoFeatureExtractor.from_pretrained(str(path), trust_remote_code=False)
        normalizes = getattr(extractor, "do_normalize", False)
        if not isinstance(normalizes, bool):
            raise ValueError(f"do_normalize is {normalizes!r}, expected true or false")
    except Exception as error:  # transformers raises many kinds of errors for a malformed file
        if file.is_file() or not isinstance(error, OSError | ValueError):
            raise ValueError(f"{file} is damaged: {one_line(error)}") from error
        return getattr(model.config, "feat_extract_norm", "group") == "layer"
    return normalizes


class WhisperEncoder(_TransformersModel):
    """Whisper's encoder (Radford et al., 2022) at 50 Hz, on the speech without padding to 30 s.

    `layer` counts the blocks whose output is taken, before the final normalization; the last ones give poor
    units. `context` frames on either side of a seam, in files of over 30 s, are not kept.
    """

    unit_hop = 320
    min_samples = 400

    def __init__(
        self, model, path: str | Path, layer: int, device: Device = "cpu", context: int = 100
    ):
        from transformers import WhisperFeatureExtractor

        self._identify(path, model)
        self.layer = layer
        if not 1 <= layer <= len(model.layers):
            raise ValueError(f"--layer is {layer}, {path} has layers 1 to {len(model.layers)}")
        del model.layers[layer:]
        self.device = torch.device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        mel = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).mel_filters
        self._filters = torch.from_numpy(mel).to(self.device, torch.float32).T.contiguous()
        self.chunk_frames = model.config.max_source_positions
        self.context = min(context, self.chunk_frames // 4)

    def num_frames(self, samples: int) -> int:
        """The number of pairs of mel frames, which are 160 samples apart; an incomplete pair counts."""
        return (samples // 160 + 1) // 2

    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        if not wavs:
            return []
        model, lengths = self.model, [len(wav) // 160 for wav in wavs]
        own = self._own_frames(lengths)
        # As in a file alone: the convolutions see zeros after its end, and its frames attend to each other.
        x = F.gelu(model.conv1(self._log_mel(wavs, own[:, None])))
        x = F.gelu(model.conv2(x * own[:, None])).transpose(1, 2)
        x = x + model.embed_positions.weight[: x.shape[1]]
        frames, mask = [(length + 1) // 2 for length in lengths], None
        if min(frames) < max(frames):
            mask = torch.zeros(len(x), 1, 1, x.shape[1], device=self.device)
            mask.masked_fill_(~self._own_frames(frames)[:, None, None], torch.finfo(x.dtype).min)
        for block in model.layers:
            x = block(x, attention_mask=mask)
            x = x[0] if isinstance(x, tuple) else x
        return [row[:length] for row, length in zip(x, frames, strict=True)]

    def _own_frames(self, lengths: Sequence[int]) -> Tensor:
        """(B, longest) bool: True for a file's own frames, False for padding."""
        steps = torch.arange(max(lengths), device=self.device)
        return steps < torch.tensor(lengths, device=self.device)[:, None]

    def _log_mel(self, wavs: Sequence[Tensor], own: Tensor) -> Tensor:
        """Whisper's input (B, bins, frames): log10 of the mel spectrogram, at most 8 below a file's maximum,
        scaled; 0 where it is not a file's `own` (B, 1, frames)."""
        # Each waveform is mirrored at both ends as if it were alone.
        mirrored = [F.pad(wav[None], (200, 200), "reflect")[0] for wav in wavs]
        padded = pad_sequence(mirrored, batch_first=True).to(self.device)
        window = torch.hann_window(400, device=self.device)
        bins = torch.stft(padded, 400, 160, window=window, center=False, return_complex=True)
        power = bins[..., : own.shape[-1]].abs().square().contiguous()
        mel = (self._filters @ power).clamp(min=1e-10).log10()
        largest = mel.masked_fill(~own, -torch.inf).amax((1, 2), keepdim=True)
        return (torch.maximum(mel, largest - 8.0) + 4.0) / 4.0 * own
