"""Embeds the conditioning streams, aligns them with frames and passes them to a waveform generator."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fairseq_resynth.constants import F0_HOP, TOKENS
from fairseq_resynth.modules.generators.source_filter import SourceClock


class Streams(Protocol):
    """The sizes of the streams that a model is conditioned on, implemented by `data.streams.StreamSpec`.

    A size of 0 or an empty sequence of names means that there is no such stream; `f0_channels` is that of
    continuous F0 at 200 Hz, and `speaker_dim` is 0 for a table of `speakers`.
    """

    unit_hop: int
    num_units: int
    f0_code_hop: int
    num_f0_codes: int
    f0_channels: int
    speakers: Sequence[str]
    speaker_dim: int
    has_speaker: bool
    tokens: Mapping[str, Sequence[str]]  # names of each named token (`constants.TOKENS`)


def frame_channels(streams: Streams, embedding_dim: int) -> int:
    """The channels of a frame, [units | pitch | speaker | named tokens]."""
    embedded = 1 + bool(streams.num_f0_codes) + streams.has_speaker + len(streams.tokens)
    return embedded * embedding_dim + streams.f0_channels


class UnitGenerator(nn.Module):
    """Content units, pitch and speaker to a waveform (Polyak et al., 2021, section 2.2).

    Each value of a stream is repeated for as many frames as its hop spans. Speaking styles are
    those of Expresso (Nguyen et al., 2023), languages as in Seamless (Barrault et al., 2023).

    Args:
        generator: maps (B, `frame_channels`, L) frames to (B, 1, L * generator.hop) samples.
        streams: what the model is conditioned on; ValueError if pitch has two forms, or the generator's hop
            does not divide a hop.
        embedding_dim: channels of each embedded stream.
        duration_predictor: maps embedded collapsed units to log(count + 1); None for none.
    """

    def __init__(
        self,
        generator: nn.Module,
        streams: Streams,
        embedding_dim: int = 128,
        duration_predictor: nn.Module | None = None,
    ):
        super().__init__()
        if streams.num_f0_codes and streams.f0_channels:
            raise ValueError("the model has F0 codes and continuous F0: expected one of them.")

        def table(rows: int) -> nn.Embedding | None:
            return nn.Embedding(rows, embedding_dim) if rows else None

        self.generator = generator
        self.unit_repeats = _repeats("unit_hop", streams.unit_hop, generator.hop)
        self.f0_repeats = 0
        if streams.num_f0_codes:
            self.f0_repeats = _repeats("f0_code_hop", streams.f0_code_hop, generator.hop)
        elif streams.f0_channels:
            self.f0_repeats = _repeats("F0 hop", F0_HOP, generator.hop)
        self.unit_embedding = table(streams.num_units)
        self.f0_code_embedding = table(streams.num_f0_codes)
        self.speaker_embedding = (
            nn.Linear(streams.speaker_dim, embedding_dim)
            if streams.speaker_dim
            else table(len(streams.speakers))
        )
        for name in TOKENS:  # style_embedding and so on
            setattr(self, f"{name}_embedding", table(len(streams.tokens.get(name, ()))))
        self.duration_predictor = duration_predictor

    def forward(
        self,
        units: Tensor,
        f0_codes: Tensor | None = None,
        speaker: Tensor | None = None,
        *,
        source_f0: Tensor | None = None,
        clock: SourceClock | None = None,
        **streams: Tensor | None,
    ) -> Tensor:
        """Generates (B, 1, U * unit_hop) samples in [-1, 1], 0 after a row's end, of the streams of `frames`.

        `source_f0` and `clock` are those of `SourceFilterGenerator.forward`, and only for that generator.
        """
        frames, lengths = self.frames(units, f0_codes, speaker, **streams)
        source = {"source_f0": source_f0, "clock": clock}
        given = {name: value for name, value in source.items() if value is not None}
        return self.generator(frames, lengths, **given)

    def frames(
        self,
        units: Tensor,
        f0_codes: Tensor | None = None,
        speaker: Tensor | None = None,
        f0: Tensor | None = None,
        unit_lengths: Tensor | None = None,
        **tokens: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeds and aligns the streams: ((B, C, L) frames, (B,) frames of each row or None).

        Args:
            units: (B, U) int64.
            f0_codes: (B, F) int64 with F >= U * unit_hop / f0_code_hop.
            speaker: (B,) int64, or (B, D) float for a model on speaker vectors.
            f0: (B, C, N) float, normalized, for a model on continuous F0.
            unit_lengths: (B,) units of each row in a padded batch; None: no padding.
            tokens: (B,) int64 of each named token that the model has.

        Raises ValueError if a stream of the model is missing or too short, or the model does not have it.
        """
        units_embedded = self.unit_embedding(units).transpose(1, 2)
        streams = [units_embedded.repeat_interleave(self.unit_repeats, dim=2)]
        frames = streams[0].size(2)
        streams += self._pitch(f0_codes, f0, frames)
        for name in ("speaker", *dict.fromkeys((*TOKENS, *tokens))):
            value = speaker if name == "speaker" else tokens.get(name)
            embedding = getattr(self, f"{name}_embedding", None)
            _check_given(name, value, embedding is not None)
            if embedding is not None:
                streams.append(embedding(value)[:, :, None].expand(-1, -1, frames))
        lengths = None if unit_lengths is None else unit_lengths * self.unit_repeats
        return torch.cat(streams, dim=1), lengths

    def _pitch(self, f0_codes: Tensor | None, f0: Tensor | None, frames: int) -> list[Tensor]:
        has_codes = self.f0_code_embedding is not None
        _check_given("F0 codes", f0_codes, has_codes)
        _check_given("continuous F0", f0, not has_codes and self.f0_repeats > 0)
        if not self.f0_repeats:
            return []
        pitch = self.f0_code_embedding(f0_codes).transpose(1, 2) if has_codes else f0
        pitch = pitch.repeat_interleave(self.f0_repeats, dim=2)
        if pitch.size(2) < frames:
            raise ValueError(
                f"the pitch stream covers {pitch.size(2)} of {frames} frames: "
                f"expected at least {-(-frames // self.f0_repeats)} values per row."
            )
        return [pitch[:, :, :frames]]

    @property
    def durations_need_speaker(self) -> bool:
        """Whether the model has a duration predictor that depends on the speaker."""
        return self.duration_predictor is not None and self.duration_predictor.speaker is not None

    def log_durations(
        self, units: Tensor, unit_lengths: Tensor | None = None, speaker: Tensor | None = None
    ) -> Tensor:
        """Predicts log(count + 1), (B, U), of collapsed units (B, U) int64; arguments as for `frames`.

        The speaker is ignored unless `durations_need_speaker`. Raises ValueError if the model has no duration
        predictor, or needs a speaker and none is given.
        """
        if self.duration_predictor is None:
            raise ValueError(
                "the model has no duration predictor: train it with --duration-predictor, or give units "
                "whose repeats were not collapsed."
            )
        embedded = self.unit_embedding(units).transpose(1, 2)
        if not self.durations_need_speaker:
            return self.duration_predictor(embedded, unit_lengths)
        _check_given("speaker", speaker, True)
        # Detached, so that the durations do not change how the voices sound.
        voice = self.speaker_embedding(speaker).detach()
        return self.duration_predictor(embedded, unit_lengths, voice)


def _check_given(stream: str, value: Tensor | None, expected: bool) -> None:
    if expected and value is None:
        raise ValueError(f"the model was trained with the stream `{stream}`, and none was given.")
    if value is not None and not expected:
        raise ValueError(f"the stream `{stream}` was given, and the model was trained without it.")


def _repeats(name: str, hop: int, frame_hop: int) -> int:
    if hop <= 0 or hop % frame_hop:
        raise ValueError(
            f"{name} is {hop} samples and a frame of the generator {frame_hop} (--upsample-rates or "
            f"--frame-hop): expected a multiple, {frame_hop} for instance."
        )
    return hop // frame_hop
