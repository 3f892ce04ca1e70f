"""The base classes of content encoders, chunks and batches of files, and log-mel features."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.storage.files import file_hash

Device = str | torch.device


class FrameEncoder(ABC):
    """Maps 16 kHz speech to one vector per frame."""

    feature_type: str  # its name for `--feature-type`
    unit_hop: int  # samples from one frame to the next
    min_samples: int  # smallest number of samples that gives a frame
    checkpoint: Path | None = None  # the file of the weights, if they are in one
    layer: int | None = None  # the layer that the features come from; None if there is no choice
    device: torch.device
    chunk_frames: int = 10_000  # frames encoded together
    context: int = 0  # frames on either side of a seam that are encoded but not kept

    def num_frames(self, samples: int) -> int:
        """The number of frames: of windows of `min_samples` every `unit_hop` inside the waveform."""
        return max(0, (samples - self.min_samples) // self.unit_hop + 1)

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, each (T,) float32 in [-1, 1] at 16 kHz of `min_samples` or more, to (U, D)
        float32 each on the encoder's device; the features of each do not depend on the others."""
        return [self._in_chunks(wav.to(self.device)) for wav in wavs]

    @abstractmethod
    def _encode(self, wav: Tensor) -> Tensor:
        """Maps one chunk of a waveform (T,) to (U, D)."""

    def _in_chunks(self, wav: Tensor) -> Tensor:
        total, pieces = self.num_frames(len(wav)), []
        for chunk in plan_chunks(total, self.chunk_frames, self.context):
            stop = (chunk.stop - 1) * self.unit_hop + max(self.unit_hop, self.min_samples)
            stop = len(wav) if chunk.stop == total else stop
            pieces.append(self._encode(wav[chunk.start * self.unit_hop : stop])[chunk.kept])
        return torch.cat(pieces)

    def description(self) -> dict[str, Any]:
        """The identity of these features: a k-means fits only features with the same description."""
        return {
            "feature_type": self.feature_type,
            "checkpoint": self.checkpoint.name if self.checkpoint else None,
            "checkpoint_hash": file_hash(self.checkpoint) if self.checkpoint else None,
            "layer": self.layer,
            "unit_hop": self.unit_hop,
            "sample_rate": SAMPLE_RATE,
        }


@dataclass(frozen=True)
class Chunk:
    """Frames start … stop - 1 to encode together, of which keep_start … keep_stop - 1 are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def kept(self) -> slice:
        """The frames to keep, counted within the chunk."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def plan_chunks(frames: int, window: int, context: int) -> Iterator[Chunk]:
    """Divides a long file into overlapping chunks whose kept frames are 0 … frames - 1, each once.

    A chunk has `window` frames, of which `context` on either side of a seam are not kept.
    """
    if window <= 2 * context:
        raise ValueError(f"window is {window} frames, expected more than twice {context}")
    kept = 0
    while kept < frames:
        start = max(0, min(kept - context, frames - window))
        stop = min(start + window, frames)
        keep_stop = frames if stop == frames else stop - context
        yield Chunk(start, stop, kept, keep_stop)
        kept = keep_stop


class LogMelEncoder(FrameEncoder):
    """GSLM's log-mel features: 80 Kaldi filter banks, windows of 25 ms every 10 ms. Needs no weights."""

    feature_type = "logmel"
    unit_hop = 160
    min_samples = 400

    def __init__(self, device: Device = "cpu", chunk_frames: int = 10_000):
        self.device, self.chunk_frames = torch.device(device), chunk_frames

    def _encode(self, wav: Tensor) -> Tensor:
        from torchaudio.compliance.kaldi import fbank

        return fbank(wav[None], num_mel_bins=80, frame_length=25.0, sample_frequency=SAMPLE_RATE)


MAX_CHUNK = 1_600_000  # samples encoded together: the 100 s of GSLM's readers
CONTEXT = 32_000  # samples on either side of a seam that are encoded but not kept


class ConvolutionTransformer(FrameEncoder):
    """HuBERT and similar encoders: convolutions from samples to frames, then a transformer.

    Encodes batches so that each file has the features it would have alone, and long files in chunks of
    `max_chunk` samples, of which `context` on either side of a seam are not kept. The convolutions run on
    each waveform alone: HuBERT-base normalizes over time there, so padding would change every frame. The
    transformer runs on the padded batch with a mask. `normalize` says whether the network needs waveforms of
    mean 0 and variance 1. Raises ValueError if the network has no such layer.
    """

    first_layer = 1  # as `--layer` counts them
    # False for networks with convolutions between the transformer's blocks, which would mix padding into the
    # frames next to it. They encode one file at a time.
    masks_padding: bool = True

    def __init__(
        self,
        model: Any,
        path: str | Path,
        layer: int,
        normalize: bool,
        device: Device = "cpu",
        max_chunk: int = MAX_CHUNK,
        context: int = CONTEXT,
    ):
        first, last = self.first_layer, self.first_layer + len(model.encoder.layers) - 1
        if not first <= layer <= last:
            raise ValueError(f"--layer is {layer}, {path} has layers {first} to {last}")
        self.layer, self.normalize, self.max_chunk = layer, normalize, max_chunk
        self.device = torch.device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.unit_hop, self.min_samples = 1, 1
        modules = model.feature_extractor.conv_layers.modules()
        for convolution in reversed([each for each in modules if isinstance(each, nn.Conv1d)]):
            stride = convolution.stride[0]
            self.min_samples = (self.min_samples - 1) * stride + convolution.kernel_size[0]
            self.unit_hop *= stride
        self.chunk_frames, self.context = self.num_frames(max_chunk), context // self.unit_hop

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
        frames = [self.model.feature_extractor(wav[None])[0].T for wav in wavs]
        lengths = [len(one) for one in frames]
        steps = torch.arange(max(lengths), device=self.device)
        padding = steps >= torch.tensor(lengths, device=self.device)[:, None]
        x = self._transform(
            pad_sequence(frames, batch_first=True), padding if padding.any() else None
        )
        return [row[:length] for row, length in zip(x, lengths, strict=True)]


def read_speech(path: str | Path, min_samples: int) -> Tensor:
    """Reads a prepared file, (T,) float32. Raises as `read_audio`, and ValueError if it can have no units:
    too short for a frame, or digital silence."""
    wav = torch.from_numpy(read_audio(path))
    if len(wav) < min_samples:
        raise ValueError(
            f"{path}: {len(wav)} samples are too short for a frame, expected {min_samples} or more"
        )
    if wav.min() == wav.max():
        raise ValueError(f"{path} is silent: every sample is {wav[0].item():g}")
    return wav


def plan_batches(
    num_samples: Sequence[int], rows: Sequence[int], batch_samples: int
) -> Iterator[list[int]]:
    """Yields rows grouped by length, shortest first, so that a batch padded to its longest row has at most
    `batch_samples`; a longer row is a batch by itself, and with 0 every row is."""
    batch: list[int] = []
    for row in sorted(rows, key=lambda row: (num_samples[row], row)):
        if batch and (len(batch) + 1) * num_samples[row] > batch_samples:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
