"""The base classes of content encoders, chunks and batches of files, and log-mel features."""

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
from fairseq_resynth.data.storage.messages import one_line

Device = str | torch.device
MOST_LAYERS = 1000  # of a model that is loaded; a damaged number could take hours to build


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Keeps a GPU from computing convolutions and LSTMs in TF32, which would give other units than the
    CPU's."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


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

    @without_tf32()
    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, each (T,) float32 in [-1, 1] at 16 kHz of `min_samples` or more, to (U, D)
        float32 each on the encoder's device; those that fit into a chunk in one batch. The features of each
        do not depend on the others."""
        frames = [self.num_frames(len(wav)) for wav in wavs]
        short = [index for index, number in enumerate(frames) if number <= self.chunk_frames]
        found = dict(zip(short, self._encode([wavs[index] for index in short]), strict=True))
        return [
            found[index] if index in found else self._in_chunks(wav)
            for index, wav in enumerate(wavs)
        ]

    @abstractmethod
    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Maps chunks of waveforms, (T,) to (U, D) each; each as if it were alone."""

    def _in_chunks(self, wav: Tensor) -> Tensor:
        total, pieces = self.num_frames(len(wav)), []
        for chunk in plan_chunks(total, self.chunk_frames, self.context):
            stop = (chunk.stop - 1) * self.unit_hop + max(self.unit_hop, self.min_samples)
            stop = len(wav) if chunk.stop == total else stop
            pieces.append(self._encode([wav[chunk.start * self.unit_hop : stop]])[0][chunk.kept])
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

    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        from torchaudio.compliance.kaldi import fbank

        if not wavs:
            return []
        # Frames are computed independently. So waveforms are joined, each from a multiple of the hop on, and
        # the frames over the seams are not kept.
        wholes = [F.pad(wav, (0, -len(wav) % self.unit_hop)) for wav in wavs[:-1]]
        joined = torch.cat([*wholes, wavs[-1]]).to(self.device)
        frames = fbank(
            joined[None], num_mel_bins=80, frame_length=25.0, sample_frequency=SAMPLE_RATE
        )
        starts = itertools.accumulate((len(whole) // self.unit_hop for whole in wholes), initial=0)
        counts = [self.num_frames(len(wav)) for wav in wavs]
        return [frames[start : start + count] for start, count in zip(starts, counts, strict=True)]


MAX_CHUNK = 1_600_000  # samples encoded together: the 100 s of GSLM's readers
CONTEXT = 32_000  # samples on either side of a seam that are encoded but not kept


class ConvolutionTransformer(FrameEncoder):
    """HuBERT and similar encoders: convolutions from samples to frames, then a transformer.

    Encodes padded batches so that each file has the features it would have alone: the normalization over time
    of HuBERT-base's convolutions is over each file's own frames, and the transformer gets a mask. Long files
    are encoded in chunks of `max_chunk` samples, of which `context` on either side of a seam are not kept.
    `normalize` says whether the network needs waveforms of mean 0 and variance 1. Raises ValueError if the
    network has no such layer, or its convolutions are wider than a chunk.
    """

    first_layer = 1  # as `--layer` counts them
    # False for networks with convolutions between the transformer's blocks, which would mix padding into the
    # frames next to it. They encode only files of equal length together.
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
        self._lengths: list[int] = []  # of the waveforms in a batch, then of their frames
        for module in reversed(list(model.feature_extractor.conv_layers.modules())):
            if isinstance(module, nn.Conv1d):
                stride = module.stride[0]
                self.min_samples = (self.min_samples - 1) * stride + module.kernel_size[0]
                self.unit_hop *= stride
                module.register_forward_hook(self._count_frames)
            elif isinstance(module, nn.GroupNorm):
                module.register_forward_hook(self._normalize_each)
        if not (0 < self.unit_hop <= max_chunk and 0 < self.min_samples <= max_chunk):
            raise ValueError(
                f"{path}: its convolutions step by {self.unit_hop} samples and hear {self.min_samples}, "
                f"expected 1 to {max_chunk}"
            )
        self.chunk_frames, self.context = self.num_frames(max_chunk), context // self.unit_hop

    def _require_runs(self, path: str | Path) -> None:
        """Raises ValueError if the model cannot encode a frame: settings such as a negative number of heads
        fit the weights, and fail in the first forward."""
        try:
            with torch.inference_mode():
                self._encode([torch.zeros(self.min_samples, device=self.device)])
        except Exception as error:  # other libraries raise many kinds
            raise ValueError(
                f"{path} cannot encode a frame, its settings are damaged: {one_line(error)}"
            ) from error

    @abstractmethod
    def _transform(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        """Maps (B, U, C) frames to (B, U, D) as if each row ended where its padding begins, whatever is in
        it; `padding` is (B, U) bool, None for none."""

    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; those that fit into a chunk in one batch."""
        wavs = [wav.to(self.device) for wav in wavs]
        return super().features(
            [F.layer_norm(wav, wav.shape) for wav in wavs] if self.normalize else wavs
        )

    def _encode(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        return self._together(wavs) if self.masks_padding else by_length(self._together, wavs)

    def _together(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        if not wavs:
            return []
        self._lengths = [len(wav) for wav in wavs]
        frames = self.model.feature_extractor(pad_sequence(wavs, batch_first=True)).transpose(1, 2)
        lengths = self._lengths
        steps = torch.arange(max(lengths), device=self.device)
        padding = steps >= torch.tensor(lengths, device=self.device)[:, None]
        padded = min(lengths) < max(lengths)
        x = self._transform(frames, padding if padded else None)
        return [row[:length] for row, length in zip(x, lengths, strict=True)]

    def _count_frames(self, convolution: Any, inputs: Any, output: Tensor) -> None:
        width, stride = convolution.kernel_size[0], convolution.stride[0]
        self._lengths = [(length - width) // stride + 1 for length in self._lengths]

    def _normalize_each(self, norm: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        """Normalizes each waveform over its own frames; the output of `norm` is over the padding too."""
        if min(self._lengths) == max(self._lengths):
            return None
        for row, x, length in zip(output, inputs[0], self._lengths, strict=True):
            own = x[None, :, :length]
            own = F.group_norm(own, norm.num_groups, norm.weight, norm.bias, norm.eps)
            row[:, :length] = own[0]
        return output


def by_length(
    encode: Callable[[Sequence[Tensor]], list[Tensor]], wavs: Sequence[Tensor]
) -> list[Tensor]:
    """Encodes waveforms in batches of equal length, for networks that padding would change."""
    found: dict[int, Tensor] = {}
    order = sorted(range(len(wavs)), key=lambda index: len(wavs[index]))
    for _, indices in itertools.groupby(order, key=lambda index: len(wavs[index])):
        same = list(indices)
        found |= zip(same, encode([wavs[index] for index in same]), strict=True)
    return [found[index] for index in range(len(wavs))]


def read_speech(path: str | Path, min_samples: int) -> Tensor:
    """Reads a prepared file, (T,) float32. Raises as `read_audio`, and ValueError if it can have no units:
    too short for a frame, or digital silence."""
    wav = read_audio(path)
    if len(wav) < min_samples:
        raise ValueError(
            f"{path}: {len(wav)} samples are too short for a frame, expected {min_samples} or more"
        )
    if wav.min() == wav.max():
        raise ValueError(f"{path} is silent: every sample is {wav[0]:g}")
    return torch.from_numpy(wav)


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
