"""GSLM's content encoders (Lakhotia et al., TACL 2021), with the models and numbers of layers of its readers.

For a file that fits into one of a reader's chunks, the features are bit-identical to the reader's on the CPU.
The readers lose a frame at each seam of 100 s, crash if fewer than 400 samples are left, reset CPC's LSTM
every 4 s, and encode one file at a time, only with CUDA; none of this applies here.
"""

import ast
import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.compat import fairseq
from fairseq_resynth.data.storage.checkpoints import load_checkpoint, quiet, refusals
from fairseq_resynth.data.storage.messages import first_names, shown
from fairseq_resynth.encoders.frames import (
    MOST_LAYERS,
    ConvolutionTransformer,
    Device,
    FrameEncoder,
    by_length,
    without_tf32,
)

_CONVOLUTIONS = re.compile(r"[\s\d()\[\],+*]+")


def fairseq_classes() -> list[type]:
    """The classes in fairseq's speech checkpoints in addition to tensors: arguments as a Namespace in 2020
    and later as a dict or omegaconf, and in HuBERT's task state the dictionaries of its labels."""
    from omegaconf import DictConfig, ListConfig, base, nodes

    omegaconf = [DictConfig, ListConfig, base.ContainerMetadata, base.Metadata, nodes.AnyNode]
    omegaconf += [nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode]
    plain = [Any, defaultdict, dict, list, int, str, float, bool]
    return [Namespace, fairseq.data.Dictionary, *omegaconf, *plain]


class _FairseqEncoder(ConvolutionTransformer):
    """The common part of HuBERT and wav2vec 2.0; `chunks` are `max_chunk` and `context` of the base."""

    what: str  # for messages
    names: tuple[str, str]  # of model and task in a checkpoint
    may_normalize: bool  # whether waveforms are normalized if they were in training

    def __init__(self, path: str | Path, layer: int, device: Device = "cpu", **chunks: int):
        self.checkpoint = path = Path(path)
        require_model(load_checkpoint(path, self.what, fairseq_classes()), path, *self.names)
        with quiet(), refusals(path, self.what, fairseq_classes()):
            load = fairseq.checkpoint_utils.load_model_ensemble_and_task
            (model,), _, task = load([str(path)])
        if getattr(model, "input_quantizer", None) is not None:
            raise ValueError(f"{path} quantizes its input, which GSLM's reader does not support")
        depth = getattr(model.cfg, "pos_conv_depth", 1) if hasattr(model, "cfg") else 1
        kinds = {type(block).__name__ for block in model.encoder.layers}
        self.masks_padding = depth == 1 and all(kind.startswith("Transformer") for kind in kinds)
        normalize = self.may_normalize and bool(task.cfg.normalize)
        super().__init__(model, path, layer, normalize, device, **chunks)
        self._require_runs(path)

    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        model = self.model
        x = model.layer_norm(frames)
        if model.post_extract_proj is not None:
            x = model.post_extract_proj(x)
        return model.encoder(x, padding_mask=padding, layer=self.layer - self.first_layer)[0]


def require_model(state: dict[str, Any], path: Path, model: str, task: str) -> None:
    """Checks a checkpoint read from `path` before fairseq builds it, which evaluates its
    `conv_feature_layers` as Python. Raises ValueError unless that text is a list of integer triples, and for
    another model or task than expected, or no configuration."""
    if not isinstance(state.get("model"), dict):
        raise ValueError(f"{path} holds no `model`; found {first_names([*map(str, state)], 8)}")
    found_model, found_task, values = _configuration(state, path)
    if (found_model, found_task) != (model, task):
        raise ValueError(
            f"{path} holds a {shown(found_model)} of task {shown(found_task)}, expected a pretrained "
            f"{model} ({task})"
        )
    text = values.get("conv_feature_layers")
    if text is not None and not _is_convolutions(text):
        raise ValueError(
            f"{path}: conv_feature_layers is {str(text)[:80]!r}, expected a list of integer triples, "
            f"{MOST_LAYERS} at most. fairseq would run this text as Python; the file was refused."
        )
    for name in ("encoder_layers", "pos_conv_depth", "quantizer_depth"):
        number = shown(values.get(name, 1), 80)
        if not (number.isdecimal() and len(number) < 9 and 0 < int(number) <= MOST_LAYERS):
            raise ValueError(f"{path}: {name} is {number}, expected 1 to {MOST_LAYERS}")


def _configuration(state: dict[str, Any], path: Path) -> tuple[Any, Any, Any]:
    """Names of the model and of the task, and the model's settings."""
    args, cfg = state.get("args"), state.get("cfg")
    try:
        if isinstance(args, Namespace):  # fairseq prefers it to cfg
            task = {"speech_pretraining": "audio_pretraining"}.get(args.task, args.task)
            return getattr(args, "_name", None) or args.arch, task, vars(args)
        return cfg["model"]["_name"], cfg["task"]["_name"], cfg["model"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say which model it holds: neither `args` nor `cfg.model._name`"
        ) from error


def _is_convolutions(text: Any) -> bool:
    if not isinstance(text, str) or not _CONVOLUTIONS.fullmatch(text) or len(text) > 1000:
        return False
    try:
        return 0 < _num_convolutions(ast.parse(text.strip(), mode="eval").body) <= MOST_LAYERS
    except (SyntaxError, MemoryError):  # the latter for many brackets
        return False


def _num_convolutions(node: ast.expr) -> int:
    """The length of a list of integer triples that is written with + and *; 0 if it is something else."""
    match node:
        case ast.List(elts=triples):
            return len(triples) if all(map(_is_triple, triples)) else 0
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            lengths = _num_convolutions(left), _num_convolutions(right)
            return sum(lengths) if all(lengths) else 0
        case ast.BinOp(left=ast.Constant(value=count), op=ast.Mult(), right=repeated):
            return count * _num_convolutions(repeated)
        case ast.BinOp(left=repeated, op=ast.Mult(), right=ast.Constant(value=count)):
            return count * _num_convolutions(repeated)
    return 0


def _is_triple(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Tuple | ast.List)
        and len(node.elts) == 3
        and all(isinstance(one, ast.Constant) and 0 < one.value < 10_000 for one in node.elts)
    )


class HubertEncoder(_FairseqEncoder):
    """HuBERT (Hsu et al., 2021) as in GSLM's HubertFeatureReader: layers count from 1, 50 Hz."""

    feature_type = "hubert"
    what = "a HuBERT checkpoint of fairseq"
    names = "hubert", "hubert_pretraining"
    may_normalize = True


class Wav2vec2Encoder(_FairseqEncoder):
    """wav2vec 2.0 (Baevski et al., 2020) as in GSLM's Wav2VecFeatureReader: layers count from 0, 50 Hz.

    Like the reader, it does not normalize the waveform, even for checkpoints that were trained with that.
    """

    feature_type = "w2v2"
    first_layer = 0
    what = "a wav2vec 2.0 checkpoint of fairseq"
    names = "wav2vec2", "audio_pretraining"
    may_normalize = False


class CpcEncoder(FrameEncoder):
    """CPC (Rivière et al., 2020) as in GSLM's CpcFeatureReader: the first `layer` LSTM layers, 100 Hz.

    `chunk_frames` is how many frames the convolutions compute together; the features do not depend on it.
    """

    feature_type = "cpc"
    unit_hop = 160
    min_samples = 159
    context = 8  # the receptive field of a frame is 465 samples

    def __init__(
        self, path: str | Path, layer: int, device: Device = "cpu", chunk_frames: int = 10_000
    ):
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import cpc_feature_reader

        self.checkpoint, self.layer = Path(path), layer
        self.device, self.chunk_frames = torch.device(device), chunk_frames
        what = "a CPC checkpoint (`weights` and `config`)"
        state = load_checkpoint(path, what)
        if not isinstance(state.get("weights"), dict) or not isinstance(state.get("config"), dict):
            raise ValueError(f"{path} has {first_names([*map(str, state)], 8)}, expected {what}")
        levels = sum("baseNet.weight_ih_l" in name for name in state["weights"])
        if state["config"].get("nLevelsGRU") != levels:
            raise ValueError(
                f"{path} has weights of {levels} LSTM layers, its config nLevelsGRU "
                f"{shown(state['config'].get('nLevelsGRU'), 80)}"
            )
        if not 1 <= layer <= levels:
            raise ValueError(f"--layer is {layer}, {path} has {levels} LSTM layers, counted from 1")
        with refusals(self.checkpoint, what, ()):
            reader = cpc_feature_reader.CpcFeatureReader(str(path), layer, use_cuda=False)
        # The reader loads with strict=False.
        if missing := set(reader.model.state_dict()) - set(state["weights"]):
            raise ValueError(f"{path} lacks the weights {first_names(sorted(missing), 5)}")
        self.model = reader.model.requires_grad_(False).to(self.device)

    def num_frames(self, samples: int) -> int:
        """The number of frames of the padded convolutions, about samples / 160."""
        for kernel, stride, padding in ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1)):
            samples = max(0, (samples + 2 * padding - kernel) // stride + 1)
        return samples

    @without_tf32()
    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; the convolutions run in chunks."""
        frames = super().features(wavs)
        # The LSTM runs forward in time, so padding at the end changes no frame before it.
        x = self.model.gAR(pad_sequence(frames, batch_first=True))
        return [row[: len(one)] for row, one in zip(x, frames, strict=True)]

    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        return by_length(self._convolve, wavs)  # each layer pads its input

    def _convolve(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        return list(self.model.gEncoder(torch.stack([*wavs])[:, None].to(self.device)).mT)
