"""Base of HuBERT and similar encoders: convolutions from samples to frames, then a transformer."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.encoders.frames import FrameEncoder

MAX_CHUNK = 1_600_000  # samples encoded together: the 100 s of GSLM's readers
CONTEXT = 32_000  # samples on either side of a seam that are encoded but not kept


class ConvolutionTransformer(FrameEncoder):
    """Encodes batches so that each file has the features it would have alone, and long files in chunks.

    The convolutions run on each waveform alone: HuBERT-base normalizes over time there, so padding would
    change every frame. The transformer runs on the padded batch with a mask.

    Args:
        model: the network, on the CPU.
        convolutions: its convolutions, in order.
        layers: the numbers of its layers, as `--layer` counts them; ValueError if `layer` is none of them.
        normalize: whether the network needs each waveform at mean 0 and variance 1.
        device: where to compute.
        max_chunk: samples encoded together.
        context: samples on either side of a seam that are encoded but not kept.
    """

    # False for networks with convolutions between the transformer's blocks, which would mix padding into the
    # frames next to it. They encode one file at a time.
    masks_padding: bool = True

    def __init__(
        self,
        model: Any,
        convolutions: Sequence[nn.Conv1d],
        layers: range,
        normalize: bool,
        device: str | torch.device = "cpu",
        max_chunk: int = MAX_CHUNK,
        context: int = CONTEXT,
    ):
        if self.layer not in layers:
            raise ValueError(
                f"--layer is {self.layer}, {self.checkpoint} has layers {layers[0]} to {layers[-1]}"
            )
        self.device, self.max_chunk, self.normalize = torch.device(device), max_chunk, normalize
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.unit_hop, self.min_samples = 1, 1
        for convolution in reversed(convolutions):
            stride = convolution.stride[0]
            self.min_samples = (self.min_samples - 1) * stride + convolution.kernel_size[0]
            self.unit_hop *= stride
        self.chunk_frames, self.context = self.num_frames(max_chunk), context // self.unit_hop

    @abstractmethod
    def _convolve(self, wav: Tensor) -> Tensor:
        """Maps one waveform (T,) to (U, C)."""

    @abstractmethod
    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        """Maps (B, U, C) frames, zeros where padded, to (B, U, D); `padding` is (B, U) bool, None for
        none."""

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; those that fit into a chunk in one batch."""
        wavs = [wav.to(self.device) for wav in wavs]
        if self.normalize:
            wavs = [F.layer_norm(wav, wav.shape) for wav in wavs]
        short = [index for index, wav in enumerate(wavs) if len(wav) <= self.max_chunk]
        found = dict(zip(short, self._together([wavs[index] for index in short]), strict=True))
        return [
            found[index] if index in found else self._in_chunks(wav)
            for index, wav in enumerate(wavs)
        ]

    def _encode(self, wav: Tensor) -> Tensor:
        return self._together([wav])[0]

    def _together(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        if len(wavs) > 1 and not self.masks_padding:
            return [self._encode(wav) for wav in wavs]
        if not wavs:
            return []
        frames = [self._convolve(wav) for wav in wavs]
        lengths = [len(one) for one in frames]
        steps = torch.arange(max(lengths), device=self.device)
        padding = steps >= torch.tensor(lengths, device=self.device)[:, None]
        x = self._transform(
            pad_sequence(frames, batch_first=True), padding if padding.any() else None
        )
        return [row[:length] for row, length in zip(x, lengths, strict=True)]
