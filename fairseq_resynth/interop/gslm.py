"""GSLM's content encoders (Lakhotia et al., TACL 2021): its readers' models, without their limits.

`fairseq.examples.textless_nlp.gslm.speech2unit.pretrained` loads the models and says which layer is meant.
A file that fits into one of a reader's chunks gets the reader's features, to the bit on the CPU. Mended:
longer files (a frame lost at each seam of 100 s, a crash on a tail of under 400 samples, CPC's tail cut along
the wrong axis and its LSTM reset every 4 s), one file at a time, CUDA only.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_resynth.interop.checkpoints import (
    fairseq_classes,
    load_checkpoint,
    quiet,
    refusals,
    require_model,
)
from fairseq_resynth.interop.convolution_transformer import (
    CONTEXT,
    MAX_CHUNK,
    ConvolutionTransformer,
)


def alias_examples() -> ModuleType:
    """Makes `import examples.textless_nlp…`, which fairseq's examples do among themselves, find them.

    fairseq's own folder must not go on sys.path: its `logging` would hide Python's.
    """
    import fairseq.examples

    sys.modules["examples"] = fairseq.examples
    return fairseq.examples


class _FairseqEncoder(ConvolutionTransformer):
    """What HuBERT and wav2vec 2.0 have in common in fairseq.

    Args:
        path: the checkpoint.
        layer: layer as GSLM's reader counts.
        device: where to compute.
        max_chunk: samples encoded at once.
        context: samples encoded on either side of a seam but not kept.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a checkpoint of another kind, or no such layer.
    """

    first_layer: int

    def __init__(
        self,
        path: str | Path,
        layer: int,
        device: str | torch.device = "cpu",
        max_chunk: int = MAX_CHUNK,
        context: int = CONTEXT,
    ):
        self.checkpoint, self.layer = Path(path), layer
        model, normalize = self._load()
        convolutions = [block[0] for block in model.feature_extractor.conv_layers]
        layers = range(self.first_layer, self.first_layer + len(model.encoder.layers))
        depth = getattr(model.cfg, "pos_conv_depth", 1) if hasattr(model, "cfg") else 1
        is_transformer = all(
            type(block).__name__.startswith("Transformer") for block in model.encoder.layers
        )
        self.masks_padding = is_transformer and depth == 1
        super().__init__(model, convolutions, layers, normalize, device, max_chunk, context)

    def _load(self) -> tuple[nn.Module, bool]:
        """Returns the model, and whether it wants normalised waveforms."""
        raise NotImplementedError

    def _convolve(self, wav: Tensor) -> Tensor:
        return self.model.feature_extractor(wav[None])[0].T

    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        model = self.model
        x = model.layer_norm(frames)
        if model.post_extract_proj is not None:
            x = model.post_extract_proj(x)
        return model.encoder(x, padding_mask=padding, layer=self.layer - self.first_layer)[0]


def _checked_state(path: Path, what: str, model: str, task: str) -> dict[str, Any]:
    state = load_checkpoint(path, what, fairseq_classes())
    require_model(state, path, model, task)
    return state


class HubertEncoder(_FairseqEncoder):
    """HuBERT (Hsu et al., 2021) as GSLM's HubertFeatureReader: layers count from 1, 50 Hz."""

    feature_type = "hubert"
    first_layer = 1

    def _load(self) -> tuple[nn.Module, bool]:
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import hubert_feature_reader

        what = "a HuBERT checkpoint of fairseq"
        _checked_state(self.checkpoint, what, "hubert", "hubert_pretraining")
        with quiet(), refusals(self.checkpoint, what, fairseq_classes()):
            reader = hubert_feature_reader.HubertFeatureReader(
                str(self.checkpoint), self.layer, use_cuda=False
            )
        return reader.model, bool(reader.task.cfg.normalize)


class Wav2vec2Encoder(_FairseqEncoder):
    """wav2vec 2.0 (Baevski et al., 2020) as GSLM's Wav2VecFeatureReader: layers count from 0, 50 Hz.

    Like the reader, it does not normalise the waveform, even for checkpoints that were trained so.
    """

    feature_type = "w2v2"
    first_layer = 0

    def _load(self) -> tuple[nn.Module, bool]:
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import w2v2_feature_reader

        what = "a wav2vec 2.0 checkpoint of fairseq"
        state = _checked_state(self.checkpoint, what, "wav2vec2", "audio_pretraining")
        with quiet(), refusals(self.checkpoint, what, fairseq_classes()):
            if state.get("args") is None:
                # the reader knows the layout of 2020 alone; later files have `cfg` instead of `args`
                from fairseq.checkpoint_utils import load_model_ensemble_and_task

                models, _, _ = load_model_ensemble_and_task([str(self.checkpoint)])
                reader = SimpleNamespace(model=models[0])
            else:
                reader = w2v2_feature_reader.Wav2VecFeatureReader(
                    str(self.checkpoint), self.layer, use_cuda=False
                )
        if getattr(reader.model, "input_quantizer", None) is not None:
            raise ValueError(
                f"{self.checkpoint} quantises its input, which GSLM's reader does not support"
            )
        return reader.model, False
