"""Content encoders of torchaudio's pipelines, with the weights from a local file rather than a download."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_resynth.interop.checkpoints import load_checkpoint, refusals
from fairseq_resynth.interop.convolution_transformer import (
    CONTEXT,
    MAX_CHUNK,
    ConvolutionTransformer,
)


def _bundle(name: str):
    from torchaudio import pipelines

    known = [
        key
        for key, value in sorted(vars(pipelines).items())
        if isinstance(value, pipelines.Wav2Vec2Bundle)
    ]
    if name not in known:
        raise ValueError(f"--bundle is {name!r}, expected one of {', '.join(known)}")
    return getattr(pipelines, name)


class TorchaudioEncoder(ConvolutionTransformer):
    """HuBERT, wav2vec 2.0 and WavLM as torchaudio packs them: layers count from 1.

    Args:
        path: the weights, a .pth file of torchaudio's.
        bundle: name in `torchaudio.pipelines`, for instance HUBERT_BASE.
        layer: n is the output of n transformer blocks.
        device: where to compute.
        max_chunk: samples encoded at once.
        context: samples encoded on either side of a seam but not kept.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown bundle, a refused file, weights of another model, or no such layer.
    """

    feature_type = "torchaudio"

    def __init__(
        self,
        path: str | Path,
        bundle: str,
        layer: int,
        device: str | torch.device = "cpu",
        max_chunk: int = MAX_CHUNK,
        context: int = CONTEXT,
    ):
        self.checkpoint, self.layer, self.bundle = Path(path), layer, bundle
        found = _bundle(bundle)
        self.masks_padding = found._model_type != "WavLM"  # torchaudio's WavLM takes no mask
        model = self._load(found)
        convolutions = [block.conv for block in model.feature_extractor.conv_layers]
        layers = range(1, len(model.encoder.transformer.layers) + 1)
        normalize = bool(found._normalize_waveform)
        super().__init__(model, convolutions, layers, normalize, device, max_chunk, context)

    def _load(self, bundle) -> nn.Module:
        import torchaudio

        what = f"the weights of torchaudio's {self.bundle}"
        weights = load_checkpoint(self.checkpoint, what)
        make = (
            torchaudio.models.wavlm_model
            if bundle._model_type == "WavLM"
            else torchaudio.models.wav2vec2_model
        )
        # the head that some bundles have for recognition is not needed
        model = make(**{**bundle._params, "aux_num_out": None})
        with refusals(self.checkpoint, what, ()):
            model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("aux.")})
        return model

    def description(self) -> dict[str, Any]:
        """Returns what identifies these features, the bundle too."""
        return super().description() | {"bundle": self.bundle}

    def _convolve(self, wav: Tensor) -> Tensor:
        return self.model.feature_extractor(wav[None], None)[0][0]

    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        lengths = None if padding is None else (~padding).sum(dim=1)
        return self.model.encoder.extract_features(frames, lengths, num_layers=self.layer)[-1]
