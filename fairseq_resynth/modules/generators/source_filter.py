"""A harmonic and a noise source, filtered bin by bin in the short-time Fourier domain.

The harmonic source is a train of band-limited pulses at an F0 that a small network, the pitch head, predicts,
as in neural source-filter models (Wang et al., 2019, arXiv 1904.12088; Li et al., 2023, HiFTNet, arXiv
2309.09493). So the melody is that of the pitch stream, and the phases of neighboring frames agree from the
first update on. A ConvNeXt backbone like Vocos's predicts the filters: a complex one for the pulses and a
magnitude for the noise.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.modules.generators.vocos import (
    MAX_MAGNITUDE,
    BackboneSizes,
    ConvNextBackbone,
    frame_size,
    initialize,
    inverse_stft,
    polar,
)
from fairseq_resynth.modules.masks import frame_mask, masked
from fairseq_resynth.modules.options import option

NOISE_PERIOD = 2**16  # samples until the noise repeats
FIRST_GAIN = -3.0  # log-magnitude of the filters before training, near that of speech
MIN_ENVELOPE = 1e-4
LONGEST_FRAME = 160  # samples
PITCH_WIDTH, PITCH_KERNEL_SIZE, PITCH_LAYERS = 128, 9, 4
MIDDLE_F0 = 150.0  # Hz, where log-F0 is 0
STEPS = 240  # of log-F0 per octave: 5 cents
F0_RANGE = (30.0, 1000.0)  # Hz
AT_PULSE = 1e-6  # cycles from the middle of a pulse within which the sum is replaced by its limit


@dataclass
class SourceFilterSizes(BackboneSizes):
    """Sizes of `SourceFilterGenerator`."""

    frame_hop: int = option(
        0,
        "samples per frame, a multiple of 80 that divides the hop of every stream; 0: 160 or 80 if one "
        "does, otherwise the largest even number up to 160 that does",
    )
    n_fft: int = option(
        0, "samples of a window, a multiple of those of a frame; 0: 640, which are 40 ms"
    )


@dataclass
class SourceClock:
    """The position of a chunk in its utterance, so that its pulses continue those of the chunk before.

    The phase at a sample is the sum of F0 over all samples before it. A chunk does not have them, so it
    starts from the phase that the chunk before reached at a sample of both, the anchor.
    """

    start: int = 0  # samples of the utterance before the chunk
    anchor: int = 0  # sample of the utterance at which the phase is known
    phase: float = 0.0  # at the anchor, in cycles
    next_anchor: int = 0  # where the next chunk needs it; the generator moves the anchor there


def interpolate_frames(values: Tensor, hop: int, lengths: Tensor | None = None) -> Tensor:
    """Interpolates (..., B, L) values of frames linearly between middles, to (..., B, L * hop) samples.

    The value is constant before the first middle and after the last, which `lengths` (B,) gives for each row.
    """
    # Integers, in half samples: a chunk of an utterance then has exactly the values that the whole has.
    halves = 2 * torch.arange(values.size(-1) * hop, device=values.device) + 1 + hop
    before = halves // (2 * hop) - 1
    share = (halves % (2 * hop)).to(values.dtype) / (2 * hop)
    last = torch.full_like(values[..., :1], values.size(-1) - 1, dtype=torch.int64)
    if lengths is not None:
        last = (lengths[:, None] - 1).to(torch.int64).expand_as(last)
    left = before.clamp(min=0).minimum(last)
    right = (before + 1).minimum(last)
    return values.gather(-1, left) * (1 - share) + values.gather(-1, right) * share


def pulse_phase(
    f0: Tensor, gate: Tensor, sample_rate: int, clock: SourceClock | None = None
) -> Tensor:
    """Sums F0 to a phase that restarts at 0 wherever a voiced stretch begins.

    Without the restarts, a rounding error in the F0 of one sample would last until the end of the utterance.
    Takes F0 (B, T) in Hz and a gate (B, T) that is 0 where unvoiced; returns (B, T) cycles in float64. The
    anchor of `clock`, the position of a chunk of one utterance, is moved to the next one.
    """
    known = 0 if clock is None else clock.anchor - clock.start
    # in float64: in float32 the sum over a minute would be off by a noticeable part of a cycle
    phase = torch.cumsum(f0.double() / sample_rate, dim=1)
    phase = phase - phase[:, known, None] + (0 if clock is None else clock.phase)
    begins = F.pad((gate[:, known + 1 :] > 0) & (gate[:, known:-1] == 0), (known + 1, 0))
    # The phase at the beginning of each stretch, by the number of the stretch. A running maximum would do
    # the same, but exported graphs do not have one.
    number = begins.to(torch.int64).cumsum(dim=1)
    first = torch.zeros_like(phase).scatter(1, number * begins, phase * begins)
    phase = phase - first.gather(1, number)
    if clock is not None and 0 <= clock.next_anchor - clock.start < phase.size(1):
        clock.anchor = clock.next_anchor
        clock.phase = float(phase[0, clock.anchor - clock.start])
    return phase


def pulses(phase: Tensor, f0: Tensor, sample_rate: int) -> Tensor:
    """The sum of the cosines of all harmonics below half the sample rate, with unit power.

    The sum of cos(2 pi k p) for k = 1 … K is (sin(2 pi (K + 1/2) p) / sin(pi p) - 1) / 2, Dirichlet's kernel.
    Takes the phase (B, T) in cycles and F0 (B, T) in Hz, above 0; returns (B, T) in F0's precision.
    """
    harmonics = (0.5 * sample_rate / f0).floor().clamp(min=1)
    p = (phase - phase.round()).to(f0.dtype)  # within half a cycle, where float32 is exact enough
    middle = p.abs() < AT_PULSE
    safe = torch.where(middle, torch.full_like(p, 0.25), p)
    kernel = torch.sin(2 * math.pi * (harmonics + 0.5) * safe) / torch.sin(math.pi * safe)
    total = torch.where(middle, harmonics, (kernel - 1) / 2)
    return total * (2 / harmonics).sqrt()


class PitchHead(nn.Module):
    """Predicts F0 and voicing of a speaker from frames of the pitch stream and the speaker.

    The F0 of a frame depends on `context_frames` frames on either side.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        sizes = [in_channels] + [PITCH_WIDTH] * (PITCH_LAYERS - 1) + [2]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, PITCH_KERNEL_SIZE, padding=PITCH_KERNEL_SIZE // 2)
            for before, after in itertools.pairwise(sizes)
        )
        self.context_frames = PITCH_LAYERS * (PITCH_KERNEL_SIZE // 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (B, C, L) frames to (B, 2, L): log2(F0 / 150 Hz), and the logit of voicing; `mask` (B, 1, L)
        is 0 after a row's end."""
        for layer, conv in enumerate(self.convs):
            x = conv(masked(F.gelu(x) if layer else x, mask))
        return x

    def predict(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(log-F0 (B, L) in octaves from 150 Hz, in steps of 5 cents; voicing (B, L), 0 or 1).

        Without the steps, the rounding errors of another batch or chunk would add up to another phase. Only a
        value within rounding error of the edge between two steps can still become another one.
        """
        log_f0, logit = self(x, mask).float().unbind(1)
        return (log_f0 * STEPS).round() / STEPS, (logit > 0).to(log_f0.dtype)

    @staticmethod
    def hertz(log_f0: Tensor) -> Tensor:
        """Maps octaves from 150 Hz to Hz, limited to 30 to 1000 Hz."""
        # In float64, since the result of a float32 power depends on its place in memory.
        hertz = MIDDLE_F0 * torch.exp2(log_f0.double())
        return hertz.clamp(*F0_RANGE).to(log_f0.dtype)

    @staticmethod
    def measured(source_f0: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """The (log-F0, voicing) (B, frames) of recordings, as `predict` returns them.

        `source_f0` (B, 2, N) is F0 at 200 Hz in Hz without gaps, and voicing. If N is not a multiple of
        `frames`, each frame has the F0 at its middle.
        """
        per_frame, rest = divmod(source_f0.size(2), frames)
        if rest:
            middles = (2 * torch.arange(frames, device=source_f0.device) + 1) * source_f0.size(2)
            source_f0, per_frame = source_f0[:, :, middles // (2 * frames)], 1
        log_f0 = torch.log2(source_f0[:, 0].clamp(*F0_RANGE) / MIDDLE_F0)
        log_f0 = log_f0.unflatten(1, (frames, per_frame)).mean(2)
        voicing = source_f0[:, 1].unflatten(1, (frames, per_frame)).mean(2)
        return log_f0, (voicing >= 0.5).to(log_f0.dtype)

    def loss(self, x: Tensor, source_f0: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mean distance in semitones over voiced frames plus the voicing's cross-entropy in bits.

        Takes frames (B, C, L), `source_f0` as `measured` does, and the frames of each row (B,).
        """
        mask = frame_mask(x, lengths)
        log_f0, logit = self(x, mask).float().unbind(1)
        target, voicing = self.measured(source_f0.float(), x.size(2))
        weight = None if mask is None else mask[:, 0]
        voiced = masked(voicing, weight)
        semitones = 12 * ((log_f0 - target).abs() * voiced).sum() / voiced.sum().clamp(min=1)
        entropy = F.binary_cross_entropy_with_logits(logit, voicing, weight, reduction="sum")
        frames = voicing.numel() if weight is None else weight.sum()
        return semitones + entropy / frames / math.log(2)


class SourceFilterGenerator(ConvNextBackbone):
    """Frames of units, pitch and speaker to samples, in place of `HifiganGenerator`.

    F0 is predicted from the `pitch_channels` (first, last + 1): pitch stream and speaker. A frame has
    as many samples as `sizes` says, or up to 160 that divide `default_hop`. A sample depends on
    `context_frames` frames on either side, and its F0 on `pitch_context_frames`. Raises ValueError if the
    sizes ask for a frame that is not a multiple of 80 samples, or the window does not fit it.
    """

    takes_source_f0 = True

    def __init__(
        self,
        in_channels: int,
        pitch_channels: tuple[int, int],
        sizes: SourceFilterSizes | None = None,
        default_hop: int = 160,
    ):
        sizes = sizes or SourceFilterSizes()
        # F0 comes every 80 samples: frames of whole F0 frames are preferred.
        whole = math.gcd(default_hop, LONGEST_FRAME)
        hop = sizes.frame_hop or (
            whole if whole % F0_HOP == 0 else frame_size(default_hop, LONGEST_FRAME)
        )
        n_fft = sizes.n_fft or hop * max(2, round(640 / hop))
        if sizes.frame_hop % F0_HOP:
            raise ValueError(
                f"the frame is {hop} samples: expected a multiple of {F0_HOP}, 160 for instance."
            )
        # F0 and voicing are two more channels of a frame for the backbone
        super().__init__(in_channels + 2, sizes, hop, n_fft)
        self.n_fft, self.pitch_channels = n_fft, pitch_channels
        self.pitch_head = PitchHead(pitch_channels[1] - pitch_channels[0])
        self.pitch_context_frames = self.pitch_head.context_frames + 1
        overlap = -(-n_fft // (2 * hop))
        self.context_frames = self.backbone_context + overlap + self.pitch_context_frames
        self.filters = nn.Linear(sizes.dim, 3 * (n_fft // 2 + 1))
        # Not saved, since both follow from the arguments. The noise is uniform, of unit power and always the
        # same, so that a chunk of an utterance gets the noise that it has in the whole.
        noise = np.random.PCG64(0).random_raw(NOISE_PERIOD) / 2.0**64 - 0.5
        self.register_buffer("noise", torch.from_numpy(noise * 12**0.5).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.apply(initialize)
        nn.init.constant_(self.filters.bias[: n_fft // 2 + 1], FIRST_GAIN)
        nn.init.constant_(self.filters.bias[n_fft + 2 :], FIRST_GAIN)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        source_f0: Tensor | None = None,
        clock: SourceClock | None = None,
    ) -> Tensor:
        """Maps (B, C, L) frames to (B, 1, L * hop) samples, in [-1, 1] in evaluation mode only.

        `lengths` are those of `HifiganGenerator.forward`. `source_f0` (B, 2, N) is the F0 of the recording at
        200 Hz, for training: Hz without gaps, and voicing (0 or 1); None: the predicted F0. `clock` says
        where in its utterance a single row begins; None: at the start.
        """
        mask = frame_mask(x, lengths)
        x = masked(x, mask)
        if source_f0 is None:
            log_f0, voicing = self.pitch_head.predict(self._pitch(x), mask)
        else:
            log_f0, voicing = self.pitch_head.measured(source_f0, x.size(2))
        # The pitch head learns from `pitch_loss` alone: gradients through the phase would be chaotic.
        log_f0, voicing = log_f0.detach(), voicing.detach()
        pitch = torch.stack([log_f0 * voicing, voicing], dim=1).to(x.dtype)
        gains = self.filters(self.backbone(torch.cat([x, pitch], dim=1), mask))
        with torch.autocast(x.device.type, enabled=False):
            harmonic, noise = self._sources(log_f0.float(), voicing.float(), lengths, clock)
            log_magnitude, phase, noise_log_magnitude = gains.float().chunk(3, dim=2)
            spectrum = polar(log_magnitude, phase) * self._spectrum(harmonic, mask)
            noise_magnitude = noise_log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
            spectrum = spectrum + noise_magnitude * self._spectrum(noise, mask)
            wav = inverse_stft(spectrum, self.window, self.hop, mask, MIN_ENVELOPE)
        return wav if self.training else wav.clamp(-1, 1)

    def pitch_loss(self, x: Tensor, source_f0: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The distance of the predicted F0 from the recording's, as `PitchHead.loss` measures it."""
        return self.pitch_head.loss(self._pitch(x), source_f0, lengths)

    def _pitch(self, x: Tensor) -> Tensor:
        return x[:, self.pitch_channels[0] : self.pitch_channels[1]]

    def _sources(
        self, log_f0: Tensor, voicing: Tensor, lengths: Tensor | None, clock: SourceClock | None
    ) -> tuple[Tensor, Tensor]:
        """The pulses and the noise, (B, L * hop) each."""
        both = torch.stack([self.pitch_head.hertz(log_f0), voicing])
        f0, gate = interpolate_frames(both, self.hop, lengths)
        start = torch.zeros(f0.size(0), 1, dtype=torch.int64, device=f0.device)
        phase = pulse_phase(f0, gate, SAMPLE_RATE, clock)
        if clock is not None:
            start = start + clock.start
        elif self.training:  # a crop begins anywhere in its utterance, so at any phase
            phase = phase + torch.rand(f0.size(0), 1, device=f0.device, dtype=phase.dtype)
            start = torch.randint(NOISE_PERIOD, start.shape, device=f0.device)
        index = (torch.arange(f0.size(1), device=f0.device) + start) % NOISE_PERIOD
        return pulses(phase, f0, SAMPLE_RATE) * gate, self.noise[index]

    def _spectrum(self, wav: Tensor, mask: Tensor | None) -> Tensor:
        """The spectra (B, L, n_fft / 2 + 1) of windows around the middle of each frame."""
        if mask is not None:
            wav = wav * mask[:, 0].float().repeat_interleave(self.hop, dim=1)
        margin, count = (self.n_fft - self.hop) // 2, wav.size(1) // self.hop
        blocks = F.pad(wav, (margin, margin)).view(wav.size(0), -1, self.hop)
        parts = [blocks[:, part : part + count] for part in range(self.n_fft // self.hop)]
        return torch.fft.rfft(torch.cat(parts, dim=2) * self.window, dim=2)
