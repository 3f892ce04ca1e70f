"""GSLM's content encoders (Lakhotia et al., TACL 2021): the models of its readers in fairseq.

`fairseq.examples.textless_nlp.gslm.speech2unit.pretrained` loads the models and defines the numbers of
layers. For a file that fits into one of a reader's chunks, the features are bit-identical to the reader's
on the CPU. Limits of the readers that do not apply here: longer files lose a frame at each seam of 100 s,
crash if fewer than 400 samples are left, and reset CPC's LSTM every 4 s; files are encoded one at a time,
and only with CUDA.
"""

import ast
import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.compat import fairseq
from fairseq_resynth.data.storage.checkpoints import load_checkpoint, quiet, refusals
from fairseq_resynth.encoders.convolution_transformer import ConvolutionTransformer
from fairseq_resynth.encoders.frames import FrameEncoder

_CONVOLUTIONS = re.compile(r"[\s\d()\[\],+*]+")


def fairseq_classes() -> list[type]:
    """The classes that fairseq's speech checkpoints contain in addition to tensors and plain types.

    Checkpoints of 2020 have their arguments as a Namespace, later ones a configuration as dict or omegaconf.
    HuBERT's task state has the dictionaries of its labels.
    """
    from omegaconf import DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.nodes import AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode

    omegaconf = [DictConfig, ListConfig, ContainerMetadata, Metadata]
    omegaconf += [AnyNode, StringNode, IntegerNode, FloatNode, BooleanNode]
    plain = [Any, defaultdict, dict, list, int, str, float, bool]
    return [Namespace, fairseq.data.Dictionary, *omegaconf, *plain]


class _FairseqEncoder(ConvolutionTransformer):
    """The common part of HuBERT and wav2vec 2.0; `chunks` are `max_chunk` and `context` of the base."""

    first_layer: int

    def __init__(
        self, path: str | Path, layer: int, device: str | torch.device = "cpu", **chunks: int
    ):
        self.checkpoint, self.layer = Path(path), layer
        model, normalize = self._load()
        convolutions = [block[0] for block in model.feature_extractor.conv_layers]
        layers = range(self.first_layer, self.first_layer + len(model.encoder.layers))
        depth = getattr(model.cfg, "pos_conv_depth", 1) if hasattr(model, "cfg") else 1
        kinds = {type(block).__name__ for block in model.encoder.layers}
        self.masks_padding = depth == 1 and all(kind.startswith("Transformer") for kind in kinds)
        super().__init__(model, convolutions, layers, normalize, device, **chunks)

    def _load(self) -> tuple[Any, bool]:
        """Loads the model, and returns whether it needs normalized waveforms."""
        raise NotImplementedError

    def _convolve(self, wav: Tensor) -> Tensor:
        return self.model.feature_extractor(wav[None])[0].T

    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        model = self.model
        x = model.layer_norm(frames)
        if model.post_extract_proj is not None:
            x = model.post_extract_proj(x)
        return model.encoder(x, padding_mask=padding, layer=self.layer - self.first_layer)[0]


def require_model(state: dict[str, Any], path: Path, model: str, task: str) -> None:
    """Checks what a fairseq checkpoint read from `path` says it is, before fairseq builds it.

    fairseq evaluates `conv_feature_layers`, a string of the checkpoint, as Python: it must be a list of
    integer triples here, so that evaluating it cannot do anything else. Raises ValueError for that, for
    another model (`_name` or `arch`) or task, and without a configuration.
    """
    if not isinstance(state.get("model"), dict):
        raise ValueError(f"{path} holds no `model`; found {', '.join(map(str, list(state)[:8]))}")
    found_model, found_task, values = _configuration(state, path)
    if (found_model, found_task) != (model, task):
        raise ValueError(
            f"{path} holds a {found_model} of task {found_task}, expected a pretrained {model} ({task})"
        )
    text = values.get("conv_feature_layers")
    if text is not None and not _is_convolutions(text):
        raise ValueError(
            f"{path}: conv_feature_layers is {str(text)[:80]!r}, expected a list of integer triples. "
            "fairseq would run this text as Python; the file was refused."
        )


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
    if not isinstance(text, str) or not _CONVOLUTIONS.fullmatch(text):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return False
    allowed = ast.Expression | ast.List | ast.Tuple | ast.BinOp | ast.Add | ast.Mult | ast.Load
    return all(
        isinstance(node, allowed) or isinstance(node, ast.Constant) and 0 < node.value < 10_000
        for node in ast.walk(tree)
    )


def _checked_state(path: Path, what: str, model: str, task: str) -> dict[str, Any]:
    state = load_checkpoint(path, what, fairseq_classes())
    require_model(state, path, model, task)
    return state


class HubertEncoder(_FairseqEncoder):
    """HuBERT (Hsu et al., 2021) as in GSLM's HubertFeatureReader: layers count from 1, 50 Hz."""

    feature_type = "hubert"
    first_layer = 1

    def _load(self) -> tuple[Any, bool]:
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import hubert_feature_reader

        what = "a HuBERT checkpoint of fairseq"
        _checked_state(self.checkpoint, what, "hubert", "hubert_pretraining")
        with quiet(), refusals(self.checkpoint, what, fairseq_classes()):
            reader = hubert_feature_reader.HubertFeatureReader(
                str(self.checkpoint), self.layer, use_cuda=False
            )
        return reader.model, bool(reader.task.cfg.normalize)


class Wav2vec2Encoder(_FairseqEncoder):
    """wav2vec 2.0 (Baevski et al., 2020) as in GSLM's Wav2VecFeatureReader: layers count from 0, 50 Hz.

    Like the reader, it does not normalize the waveform, even for checkpoints that were trained with that.
    """

    feature_type = "w2v2"
    first_layer = 0

    def _load(self) -> tuple[Any, bool]:
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import w2v2_feature_reader

        what = "a wav2vec 2.0 checkpoint of fairseq"
        state = _checked_state(self.checkpoint, what, "wav2vec2", "audio_pretraining")
        with quiet(), refusals(self.checkpoint, what, fairseq_classes()):
            if state.get("args") is None:
                # The reader only knows the layout of 2020; later files have `cfg` instead of `args`.
                from fairseq.checkpoint_utils import load_model_ensemble_and_task

                models, _, _ = load_model_ensemble_and_task([str(self.checkpoint)])
                reader = SimpleNamespace(model=models[0])
            else:
                reader = w2v2_feature_reader.Wav2VecFeatureReader(
                    str(self.checkpoint), self.layer, use_cuda=False
                )
        if getattr(reader.model, "input_quantizer", None) is not None:
            raise ValueError(
                f"{self.checkpoint} quantizes its input, which GSLM's reader does not support"
            )
        return reader.model, False


class CpcEncoder(FrameEncoder):
    """CPC (Rivière et al., 2020) as in GSLM's CpcFeatureReader: the first `layer` LSTM layers, 100 Hz.

    `chunk_frames` is how many frames the convolutions compute together; the features do not depend on it.
    """

    feature_type = "cpc"
    unit_hop = 160
    min_samples = 159
    _context = 8  # frames; the receptive field of a frame is 465 samples

    def __init__(
        self, path: str | Path, layer: int, device: str | torch.device = "cpu", chunk_frames=10_000
    ):
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import cpc_feature_reader

        self.checkpoint, self.layer = Path(path), layer
        self.device, self.chunk_frames = torch.device(device), chunk_frames
        what = "a CPC checkpoint (`weights` and `config`)"
        state = load_checkpoint(path, what)
        if not isinstance(state.get("weights"), dict) or not isinstance(state.get("config"), dict):
            raise ValueError(f"{path} has {', '.join(map(str, list(state)[:8]))}, expected {what}")
        levels = sum("baseNet.weight_ih_l" in name for name in state["weights"])
        if not 1 <= layer <= levels:
            raise ValueError(f"--layer is {layer}, {path} has {levels} LSTM layers, counted from 1")
        with refusals(self.checkpoint, what, ()):
            reader = cpc_feature_reader.CpcFeatureReader(str(path), layer, use_cuda=False)
        # The reader loads with strict=False.
        if missing := set(reader.model.state_dict()) - set(state["weights"]):
            raise ValueError(f"{path} lacks the weights {', '.join(sorted(missing)[:5])}")
        self.model = reader.model.requires_grad_(False).to(self.device)

    def num_frames(self, samples: int) -> int:
        """The number of frames of the padded convolutions, about samples / 160."""
        for kernel, stride, padding in ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1)):
            samples = max(0, (samples + 2 * padding - kernel) // stride + 1)
        return samples

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; the convolutions run in chunks."""
        settings = self._convolve, self.chunk_frames, self._context
        frames = [self._in_chunks(wav.to(self.device), *settings) for wav in wavs]
        # The LSTM runs forward in time, so padding at the end changes no frame before it.
        x = self.model.gAR(pad_sequence(frames, batch_first=True))
        return [row[: len(one)] for row, one in zip(x, frames, strict=True)]

    def _convolve(self, wav: Tensor) -> Tensor:
        return self.model.gEncoder(wav[None, None])[0].T
