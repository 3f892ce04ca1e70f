"""GSLM's content encoders (Lakhotia et al., TACL 2021): its readers' models, without their limits.

`fairseq.examples.textless_nlp.gslm.speech2unit.pretrained` loads the models and says which layer is meant.
A file that fits into one of a reader's chunks gets the reader's features, to the bit on the CPU. Mended:
longer files (a frame lost at each seam of 100 s, a crash on a tail of under 400 samples, CPC's tail cut along
the wrong axis and its LSTM reset every 4 s), one file at a time, CUDA only.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.data.features import FrameEncoder, plan_chunks
from fairseq_resynth.interop.checkpoints import (
    fairseq_classes,
    load_checkpoint,
    quiet_fairseq,
    refusals,
    require_model,
)


def alias_examples() -> ModuleType:
    """Makes `import examples.textless_nlp…`, which fairseq's examples do among themselves, find them.

    fairseq's own folder must not go on sys.path: its `logging` would hide Python's.
    """
    import fairseq.examples

    sys.modules["examples"] = fairseq.examples
    return fairseq.examples


class _ConvolutionTransformer(FrameEncoder):
    """HuBERT and wav2vec 2.0: convolutions from samples to frames, then a transformer.

    The convolutions run on each waveform alone: HuBERT-base normalises over time there, so that padding would
    change every frame. The transformer runs on the padded batch, masked.

    Args:
        path: the checkpoint.
        layer: layer as the reader counts.
        device: where to compute.
        max_chunk: samples encoded at once, GSLM's 100 s.
        context: samples encoded on either side of a seam but not kept.
    """

    _stop: int  # index of the last transformer layer that runs
    _normalize: bool

    def __init__(
        self,
        path: str | Path,
        layer: int,
        device: str | torch.device = "cpu",
        max_chunk: int = 1_600_000,
        context: int = 32_000,
    ):
        self.checkpoint, self.layer = Path(path), layer
        self.device, self.max_chunk = torch.device(device), max_chunk
        self.model = self._load().eval().requires_grad_(False).to(self.device)
        convolutions = [layers[0] for layers in self.model.feature_extractor.conv_layers]
        self._kernels = [(c.kernel_size[0], c.stride[0]) for c in convolutions]
        self.unit_hop, self.min_samples = 1, 1
        for kernel, stride in reversed(self._kernels):
            self.min_samples = (self.min_samples - 1) * stride + kernel
            self.unit_hop *= stride
        self.context = context // self.unit_hop
        self._require_layer()

    def _load(self) -> torch.nn.Module:
        raise NotImplementedError

    def _require_layer(self) -> None:
        first = self.layer - self._stop
        last = first + len(self.model.encoder.layers) - 1
        if not first <= self.layer <= last:
            raise ValueError(
                f"--layer is {self.layer}, {self.checkpoint} has layers {first} to {last}"
            )

    def num_frames(self, samples: int) -> int:
        """Returns U: windows of `min_samples` samples every `unit_hop` that lie inside the waveform."""
        return max(0, (samples - self.min_samples) // self.unit_hop + 1)

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; see `FrameEncoder.features`."""
        wavs = [wav.to(self.device) for wav in wavs]
        if self._normalize:
            wavs = [F.layer_norm(wav, wav.shape) for wav in wavs]
        short = [index for index, wav in enumerate(wavs) if len(wav) <= self.max_chunk]
        found = dict(zip(short, self._encode([wavs[index] for index in short]), strict=True))
        return [
            found[index] if index in found else self._long(wav) for index, wav in enumerate(wavs)
        ]

    def _long(self, wav: Tensor) -> Tensor:
        window, pieces = self.num_frames(self.max_chunk), []
        for chunk in plan_chunks(self.num_frames(len(wav)), window, self.context):
            stop = (chunk.stop - 1) * self.unit_hop + self.min_samples
            piece = self._encode([wav[chunk.start * self.unit_hop : stop]])[0]
            pieces.append(piece[chunk.kept])
        return torch.cat(pieces)

    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        if not wavs:
            return []
        model = self.model
        frames = [model.feature_extractor(wav[None])[0].T for wav in wavs]
        lengths = torch.tensor([len(one) for one in frames], device=self.device)
        x = model.layer_norm(pad_sequence(frames, batch_first=True))
        if model.post_extract_proj is not None:
            x = model.post_extract_proj(x)
        padding = torch.arange(x.shape[1], device=self.device) >= lengths[:, None]
        x, _ = model.encoder(x, padding_mask=padding if padding.any() else None, layer=self._stop)
        return [row[:length] for row, length in zip(x, lengths.tolist(), strict=True)]


class HubertEncoder(_ConvolutionTransformer):
    """HuBERT (Hsu et al., 2021) as GSLM's HubertFeatureReader: layers count from 1, 50 Hz."""

    feature_type = "hubert"

    def _load(self) -> torch.nn.Module:
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import hubert_feature_reader

        what = "a HuBERT checkpoint of fairseq"
        state = load_checkpoint(self.checkpoint, what, fairseq_classes())
        require_model(state, self.checkpoint, "hubert", "hubert_pretraining")
        del state  # the reader loads the file itself
        with quiet_fairseq(), refusals(self.checkpoint, what, fairseq_classes()):
            reader = hubert_feature_reader.HubertFeatureReader(
                str(self.checkpoint), self.layer, use_cuda=False
            )
        self._stop, self._normalize = reader.layer - 1, reader.task.cfg.normalize
        return reader.model


class Wav2vec2Encoder(_ConvolutionTransformer):
    """wav2vec 2.0 (Baevski et al., 2020) as GSLM's Wav2VecFeatureReader: layers count from 0, 50 Hz.

    Like the reader, it does not normalise the waveform, even for checkpoints that were trained so.
    """

    feature_type = "w2v2"
    _normalize = False

    def _load(self) -> torch.nn.Module:
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import w2v2_feature_reader

        what = "a wav2vec 2.0 checkpoint of fairseq"
        state = load_checkpoint(self.checkpoint, what, fairseq_classes())
        require_model(state, self.checkpoint, "wav2vec2", "audio_pretraining")
        with quiet_fairseq(), refusals(self.checkpoint, what, fairseq_classes()):
            if state.get("args") is None:
                # the reader knows the layout of 2020 alone; later files have `cfg` instead of `args`
                from fairseq.checkpoint_utils import load_model_ensemble_and_task

                models, _, _ = load_model_ensemble_and_task([str(self.checkpoint)])
                reader = SimpleNamespace(model=models[0], layer=self.layer)
            else:
                reader = w2v2_feature_reader.Wav2VecFeatureReader(
                    str(self.checkpoint), self.layer, use_cuda=False
                )
        if getattr(reader.model, "input_quantizer", None) is not None:
            raise ValueError(
                f"{self.checkpoint} quantises its input, which GSLM's reader does not support"
            )
        self._stop = reader.layer
        return reader.model
