"""What F0 in Hz the pitch stream means in a speaker's mouth."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.modules.generators.vocos import frame_mask

WIDTH = 128
KERNEL_SIZE = 9
NUM_LAYERS = 4
MIDDLE_F0 = 150.0  # Hz, where the logarithm is 0
STEPS = 240  # of an octave: 5 cents
F0_RANGE = (30.0, 1000.0)  # Hz


class PitchHead(nn.Module):
    """Frames of the pitch stream and the speaker to log-F0 and voicing.

    Args:
        in_channels: channels of a frame.

    Attributes:
        context_frames: frames on either side that a frame's F0 looks at.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        sizes = [in_channels] + [WIDTH] * (NUM_LAYERS - 1) + [2]
        self.convs = nn.ModuleList(
            [
                nn.Conv1d(before, after, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
                for before, after in zip(sizes, sizes[1:], strict=False)
            ]
        )
        self.context_frames = NUM_LAYERS * (KERNEL_SIZE // 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) frames to (B, 2, L): log2(F0 / 150 Hz), and the logit of voicing.

        Args:
            x: frames.
            mask: (B, L), 0 behind a row's end.
        """
        for layer, conv in enumerate(self.convs):
            x = F.gelu(x) if layer else x
            x = conv(x if mask is None else x * mask[:, None])
        return x

    def speak(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns (log-F0 (B, L) in octaves from 150 Hz, in steps of 5 cents, and voicing (B, L), 0 or 1).

        The steps keep the rounding errors of a batch or a chunk from adding up to another phase.
        """
        log_f0, logit = self(x, mask).float().unbind(1)
        return (log_f0 * STEPS).round() / STEPS, (logit > 0).to(log_f0.dtype)

    @staticmethod
    def hertz(log_f0: Tensor) -> Tensor:
        """Maps octaves from 150 Hz to Hz, within 30 to 1000 Hz."""
        hertz = MIDDLE_F0 * torch.exp2(
            log_f0.double()
        )  # a float32 power depends on its place in memory
        return hertz.clamp(*F0_RANGE).to(log_f0.dtype)

    @staticmethod
    def measured(source_f0: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Takes F0 at 200 Hz to the frames.

        Args:
            source_f0: (B, 2, N) F0 in Hz without gaps and voicing, as long as the frames.
            frames: how many; N is a multiple.

        Returns:
            (log-F0 (B, frames), voicing (B, frames)), as `speak`.
        """
        per_frame = source_f0.size(2) // frames
        log_f0 = torch.log2(source_f0[:, 0].clamp(*F0_RANGE) / MIDDLE_F0)
        log_f0 = log_f0.view(log_f0.size(0), frames, per_frame).mean(2)
        voicing = source_f0[:, 1].view(log_f0.size(0), frames, per_frame).mean(2)
        return log_f0, (voicing >= 0.5).to(log_f0.dtype)

    def loss(self, x: Tensor, source_f0: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the mean distance in semitones over voiced frames plus the voicing's cross-entropy in bits.

        Args:
            x: (B, C, L) frames.
            source_f0: (B, 2, N), see `measured`.
            lengths: (B,) frames of each row; None: all.
        """
        mask = torch.ones_like(x[:, 0]) if lengths is None else frame_mask(x, lengths)
        log_f0, logit = self(x, mask).float().unbind(1)
        wanted, voicing = self.measured(source_f0.float(), x.size(2))
        voiced = voicing * mask
        semitones = 12 * ((log_f0 - wanted).abs() * voiced).sum() / voiced.sum().clamp(min=1)
        entropy = F.binary_cross_entropy_with_logits(logit, voicing, reduction="none")
        bits = (entropy * mask).sum() / mask.sum() / math.log(2)
        return semitones + bits
