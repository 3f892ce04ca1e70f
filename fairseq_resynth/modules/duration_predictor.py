"""Predicts how long each unit lasts, for sequences whose repeats were collapsed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.modules.masks import frame_mask, masked


class DurationPredictor(nn.Module):
    """FastSpeech 2's variance predictor (Ren et al., 2021, section 2.2) on the embeddings of units.

    Predicts log(count + 1). The layers have the names of fairseq's predictor, whose weights load unchanged.
    The embedded speaker is added to every unit's embedding, as in multi-speaker FastSpeech 2, unless
    `speaker_channels` is 0. Its layer starts at 0, so that a predictor trained without speakers still
    predicts the same. Raises ValueError if the kernel size, in units, is even.
    """

    def __init__(
        self,
        in_channels: int = 128,
        hidden_channels: int = 128,
        kernel_size: int = 3,
        dropout: float = 0.5,
        speaker_channels: int = 0,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"the duration predictor's kernel is {kernel_size}, expected an odd number."
            )

        def conv(channels: int) -> nn.Sequential:
            layer = nn.Conv1d(channels, hidden_channels, kernel_size, padding=kernel_size // 2)
            return nn.Sequential(layer, nn.ReLU())

        self.conv1 = conv(in_channels)
        self.ln1 = nn.LayerNorm(hidden_channels)
        self.conv2 = conv(hidden_channels)
        self.ln2 = nn.LayerNorm(hidden_channels)
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(hidden_channels, 1)
        self.speaker = None
        if speaker_channels:
            self.speaker = nn.Linear(speaker_channels, in_channels, bias=False)
            nn.init.zeros_(self.speaker.weight)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, speaker: Tensor | None = None
    ) -> Tensor:
        """Maps embeddings (B, C, U) of collapsed units to log(count + 1) (B, U).

        The first `lengths` (B,) units of a row do not depend on those after them. `speaker` (B, S) holds the
        embedded speakers for a predictor with `speaker_channels`.
        """
        if self.speaker is not None:
            x = x + self.speaker(speaker)[:, :, None]
        mask = frame_mask(x, lengths)
        x = self.dropout(self.ln1(self.conv1(masked(x, mask)).transpose(1, 2)))
        x = self.conv2(masked(x.transpose(1, 2), mask)).transpose(1, 2)
        return self.proj(self.dropout(self.ln2(x))).squeeze(2)


def expand_counts(log_counts: Tensor, rate: float = 1.0) -> Tensor:
    """Converts log(count + 1) of any shape to whole numbers of frames, int64, at least 1. A speaking rate of
    2 halves every duration; ValueError if it is not positive."""
    if not 0 < rate < float("inf"):
        raise ValueError(f"the speaking rate is {rate}, expected a positive factor.")
    return torch.round((torch.exp(log_counts) - 1) / rate).long().clamp(min=1)


def find_runs(units: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Collapses repeated units (B, U) int64, of which each row has `lengths` (B,) or all: (units (B, R),
    their counts (B, R), number of runs of each row (B,)), padded with 0."""
    sizes = [units.size(1)] * len(units) if lengths is None else lengths.tolist()
    found = [
        torch.unique_consecutive(row[:size], return_counts=True)
        for row, size in zip(units, sizes, strict=True)
    ]
    collapsed, counts = (
        pad_sequence([row[part] for row in found], batch_first=True) for part in (0, 1)
    )
    return collapsed, counts, torch.tensor([len(row[0]) for row in found], device=units.device)


def duration_loss(log_counts: Tensor, counts: Tensor, num_runs: Tensor) -> Tensor:
    """Mean squared error of log(count + 1) over the runs that a crop did not cut.

    The first and the last run of a row may continue outside its crop, so they are left out. Takes predictions
    (B, R), counts (B, R) and the number of runs of each row (B,); 0 if no row has three runs.
    """
    index = torch.arange(counts.size(1), device=counts.device)
    inner = (index > 0) & (index < num_runs[:, None] - 1)
    error = F.mse_loss(log_counts.float(), torch.log1p(counts.float()), reduction="none")
    return (error * inner).sum() / inner.sum().clamp(min=1)
