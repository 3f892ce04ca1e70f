"""HuBERT and its kin: convolutions from samples to frames, then a transformer; batches and long files."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.encoders.frames import FrameEncoder, plan_chunks

MAX_CHUNK = 1_600_000  # samples encoded at once: the 100 s of GSLM's readers
CONTEXT = 32_000  # samples encoded on either side of a seam but not kept


class ConvolutionTransformer(FrameEncoder):
    """Encodes batches with the result that each file would have alone, and long files without a seam.

    The convolutions run on each waveform alone: HuBERT-base normalises over time there, so that padding would
    change every frame. The transformer runs on the padded batch, masked.

    Args:
        model: the network, on the CPU.
        convolutions: its convolutions, from the waveform on.
        layers: the layers there are, as `--layer` counts them.
        normalize: whether the network wants each waveform at mean 0 and variance 1.
        device: where to compute.
        max_chunk: samples encoded at once.
        context: samples encoded on either side of a seam but not kept.

    Raises:
        ValueError: no such layer.
    """

    checkpoint: Path
    layer: int
    # False where padding would reach the frames beside it, through convolutions between the blocks: such
    # networks encode one file at a time.
    masks_padding: bool = True

    def __init__(
        self,
        model: nn.Module,
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
        self.context = context // self.unit_hop

    @abstractmethod
    def _convolve(self, wav: Tensor) -> Tensor:
        """Returns (U, C) of one waveform (T,)."""

    @abstractmethod
    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        """Returns the layer's output (B, U, D).

        Args:
            frames: (B, U, C), zeros where padded.
            padding: (B, U) bool, True where padded; None: nowhere.
        """

    def num_frames(self, samples: int) -> int:
        """Returns U: windows of `min_samples` samples every `unit_hop` that lie inside the waveform."""
        return max(0, (samples - self.min_samples) // self.unit_hop + 1)

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; see `FrameEncoder.features`."""
        wavs = [wav.to(self.device) for wav in wavs]
        if self.normalize:
            wavs = [F.layer_norm(wav, wav.shape) for wav in wavs]
        short = [index for index, wav in enumerate(wavs) if len(wav) <= self.max_chunk]
        found = dict(zip(short, self._together([wavs[index] for index in short]), strict=True))
        return [
            found[index] if index in found else self._long(wav) for index, wav in enumerate(wavs)
        ]

    def _long(self, wav: Tensor) -> Tensor:
        window, pieces = self.num_frames(self.max_chunk), []
        for chunk in plan_chunks(self.num_frames(len(wav)), window, self.context):
            stop = (chunk.stop - 1) * self.unit_hop + self.min_samples
            piece = self._together([wav[chunk.start * self.unit_hop : stop]])[0]
            pieces.append(piece[chunk.kept])
        return torch.cat(pieces)

    def _together(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        if len(wavs) > 1 and not self.masks_padding:
            return [self._together([wav])[0] for wav in wavs]
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
