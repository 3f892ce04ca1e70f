"""GSLM's content encoders (Lakhotia et al., TACL 2021): its readers' models, without their limits.

`fairseq.examples.textless_nlp.gslm.speech2unit.pretrained` loads the models and says which layer is meant.
A file that fits into one of a reader's chunks gets the reader's features, to the bit on the CPU. Mended:
longer files (a frame lost at each seam of 100 s, a crash on a tail of under 400 samples, CPC's tail cut along
the wrong axis and its LSTM reset every 4 s), one file at a time, CUDA only.
"""

import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth import compat  # noqa: F401  says what is missing where fairseq is not installed
from fairseq_resynth.data.storage.checkpoints import (
    load_checkpoint,
    quiet,
    refusals,
    require_model,
)
from fairseq_resynth.encoders.convolution_transformer import (
    CONTEXT,
    MAX_CHUNK,
    ConvolutionTransformer,
)
from fairseq_resynth.encoders.frames import FrameEncoder, plan_chunks


def fairseq_classes() -> list[type]:
    """Returns the classes that fairseq's speech checkpoints hold beside tensors and plain types.

    2020: the arguments as a Namespace. From 2021: a configuration as dict or omegaconf. HuBERT's task state:
    the label dictionaries.
    """
    from fairseq.data.dictionary import Dictionary
    from omegaconf import DictConfig, ListConfig, base, nodes

    omegaconf_nodes = [
        nodes.AnyNode,
        nodes.StringNode,
        nodes.IntegerNode,
        nodes.FloatNode,
        nodes.BooleanNode,
    ]
    omegaconf = [DictConfig, ListConfig, base.ContainerMetadata, base.Metadata, *omegaconf_nodes]
    return [Namespace, Dictionary, *omegaconf, Any, defaultdict, dict, list, int, str, float, bool]


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


class CpcEncoder(FrameEncoder):
    """CPC (Rivière et al., 2020) as GSLM's CpcFeatureReader: the first `layer` LSTM layers, 100 Hz.

    Args:
        path: the checkpoint.
        layer: how many LSTM layers to run.
        device: where to compute.
        chunk_frames: frames that go through the convolutions at once; any number gives the same features.
    """

    feature_type = "cpc"
    unit_hop = 160
    min_samples = 159
    # Beyond the 465 samples of its receptive field a frame does not depend on where a chunk ends.
    _context = 8

    def __init__(
        self,
        path: str | Path,
        layer: int,
        device: str | torch.device = "cpu",
        chunk_frames: int = 10_000,
    ):
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import cpc_feature_reader

        self.checkpoint, self.layer = Path(path), layer
        self.device, self.chunk_frames = torch.device(device), chunk_frames
        what = "a CPC checkpoint (`weights` and `config`)"
        state = load_checkpoint(path, what)
        self._require(state, what)
        with refusals(self.checkpoint, what, ()):
            reader = cpc_feature_reader.CpcFeatureReader(str(path), layer, use_cuda=False)
        self._require_weights(reader.model, state["weights"])
        self.model = reader.model.requires_grad_(False).to(self.device)

    def _require(self, state: dict, what: str) -> None:
        if not isinstance(state.get("weights"), dict) or not isinstance(state.get("config"), dict):
            raise ValueError(
                f"{self.checkpoint} holds {', '.join(map(str, list(state)[:8]))}, expected {what}"
            )
        levels = sum("baseNet.weight_ih_l" in name for name in state["weights"])
        if not 1 <= self.layer <= levels:
            raise ValueError(
                f"--layer is {self.layer}, {self.checkpoint} has {levels} LSTM layers, counted from 1"
            )

    def _require_weights(self, model: torch.nn.Module, weights: dict) -> None:
        missing = set(model.state_dict()) - set(weights)  # the reader loads with strict=False
        if missing:
            raise ValueError(
                f"{self.checkpoint} lacks the weights {', '.join(sorted(missing)[:5])}"
            )

    def num_frames(self, samples: int) -> int:
        """Returns U: what the padded convolutions give, about samples / 160."""
        for kernel, stride, padding in ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1)):
            samples = max(0, (samples + 2 * padding - kernel) // stride + 1)
        return samples

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; see `FrameEncoder.features`."""
        frames = [self._convolve(wav.to(self.device)) for wav in wavs]
        # The LSTM runs forward in time, so padding at the end changes no frame before it.
        x = self.model.gAR(pad_sequence(frames, batch_first=True))
        return [row[: len(one)] for row, one in zip(x, frames, strict=True)]

    def _convolve(self, wav: Tensor) -> Tensor:
        """Returns (U, C): the convolutions' output, in chunks that overlap by their receptive field."""
        total, pieces = self.num_frames(len(wav)), []
        for chunk in plan_chunks(total, self.chunk_frames, self._context):
            stop = len(wav) if chunk.stop == total else chunk.stop * self.unit_hop
            piece = wav[None, None, chunk.start * self.unit_hop : stop]
            pieces.append(self.model.gEncoder(piece)[0].T[chunk.kept])
        return torch.cat(pieces)
