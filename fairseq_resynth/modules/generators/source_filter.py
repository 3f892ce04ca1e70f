"""A harmonic and a noise source, filtered line by line in the short-time Fourier domain.

The pitch is a train of band-limited pulses at an F0 of its own, as in neural source-filter models (Wang et
al., 2019, arXiv 1904.12088; Li et al., 2023, HiFTNet, arXiv 2309.09493), so that the melody is what the pitch
stream says, and frames fit together from the first update on. A ConvNeXt backbone, as of Vocos, gives the
filters: a complex one for the pulses and a magnitude for the noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.modules.generators.pitch_head import PitchHead
from fairseq_resynth.modules.generators.pulses import (
    SourceClock,
    pulse_phase,
    pulses,
    sample_frames,
)
from fairseq_resynth.modules.generators.vocos import (
    MAX_MAGNITUDE,
    BackboneSizes,
    ConvNextBackbone,
    check_window,
    frame_mask,
    initialise,
    overlap_add,
)
from fairseq_resynth.modules.options import option

NOISE_PERIOD = 2**16  # samples until the noise repeats
FIRST_GAIN = -3.0  # log-magnitude of the filters before training, near that of speech
MIN_ENVELOPE = 1e-4


@dataclass
class SourceFilterSizes(BackboneSizes):
    """Sizes of `SourceFilterGenerator`."""

    frame_hop: int = option(
        0,
        "samples per frame, a multiple of 80 that divides the hop of every stream; 0: 160, or 80 for "
        "continuous F0",
    )
    n_fft: int = option(
        0, "samples of a window, a multiple of those of a frame; 0: 640, which are 40 ms"
    )


class SourceFilterGenerator(ConvNextBackbone):
    """Frames of units, pitch and speaker to samples, in place of `HifiganGenerator`.

    Args:
        in_channels: channels of a frame.
        pitch_channels: (first, last + 1) of those that tell the pitch: its stream and who speaks.
        hop: samples a frame.
        dim: channels of the backbone.
        intermediate_dim: channels inside its blocks.
        num_layers: its blocks.
        n_fft: samples of a window, a multiple of the hop; 0: 40 ms.

    Attributes:
        hop: samples a frame.
        context_frames: frames on either side of a sample that it looks at.
        pitch_context_frames: of these, what the F0 looks at.

    Raises:
        ValueError: a frame that is no multiple of 80 samples, or a window that does not fit it.
    """

    takes_source_f0 = True

    def __init__(
        self,
        in_channels: int,
        pitch_channels: tuple[int, int],
        hop: int = 160,
        dim: int = 512,
        intermediate_dim: int = 1536,
        num_layers: int = 8,
        n_fft: int = 0,
    ):
        # beside its own channels a frame tells the backbone the F0 and the voicing
        super().__init__(in_channels + 2, dim, intermediate_dim, num_layers)
        n_fft = n_fft or hop * max(2, round(640 / hop))
        check_window(n_fft, hop)
        if hop % F0_HOP:
            raise ValueError(
                f"the frame is {hop} samples: expected a multiple of {F0_HOP}, 160 for instance."
            )
        self.hop, self.n_fft, self.pitch_channels = hop, n_fft, pitch_channels
        self.pitch_head = PitchHead(pitch_channels[1] - pitch_channels[0])
        self.pitch_context_frames = self.pitch_head.context_frames + 1
        overlap = -(-n_fft // (2 * hop))
        self.context_frames = self.backbone_context + overlap + self.pitch_context_frames
        self.filters = nn.Linear(dim, 3 * (n_fft // 2 + 1))
        # Not saved: both follow from the arguments. Uniform noise of unit power, the same everywhere.
        noise = np.random.PCG64(0).random_raw(NOISE_PERIOD) / 2.0**64 - 0.5
        self.register_buffer("noise", torch.from_numpy(noise * 12**0.5).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.apply(initialise)
        nn.init.constant_(self.filters.bias[: n_fft // 2 + 1], FIRST_GAIN)
        nn.init.constant_(self.filters.bias[n_fft + 2 :], FIRST_GAIN)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        source_f0: Tensor | None = None,
        clock: SourceClock | None = None,
    ) -> Tensor:
        """Generates samples.

        Args:
            x: (B, C, L) frames.
            lengths: (B,) frames of each row; behind them the output is 0 and does not change what lies
                before, so that a padded batch gives each row what it gives alone. None: no padding.
            source_f0: (B, 2, N) of a recording at 200 Hz, F0 in Hz without gaps and voicing (0 or 1), to
                train on; None: the F0 that the pitch stream and the speaker tell.
            clock: where in its utterance a single row begins; None: at the start.

        Returns:
            (B, 1, L * hop) samples; in [-1, 1] in evaluation mode, unbounded while it trains.
        """
        mask = frame_mask(x, lengths)
        x = x if mask is None else x * mask[:, None]
        if source_f0 is None:
            log_f0, voicing = self.pitch_head.speak(self._pitch(x), mask)
        else:
            log_f0, voicing = self.pitch_head.measured(source_f0, x.size(2))
        log_f0, voicing = log_f0.detach(), voicing.detach()
        pitch = torch.stack([log_f0 * voicing, voicing], dim=1)
        gains = self.filters(self.backbone(torch.cat([x, pitch], dim=1), mask))
        with torch.autocast(x.device.type, enabled=False):
            harmonic, noise = self._sources(log_f0.float(), voicing.float(), lengths, clock)
            wav = self._filter(gains.float(), harmonic, noise, mask)
        return wav if self.training else wav.clamp(-1, 1)

    def pitch_loss(self, x: Tensor, source_f0: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns how far the F0 that frames tell is from the recording's; see `PitchHead.loss`."""
        return self.pitch_head.loss(self._pitch(x), source_f0, lengths)

    def _pitch(self, x: Tensor) -> Tensor:
        return x[:, self.pitch_channels[0] : self.pitch_channels[1]]

    def _sources(
        self, log_f0: Tensor, voicing: Tensor, lengths: Tensor | None, clock: SourceClock | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the pulses and the noise, (B, L * hop) each."""
        f0 = sample_frames(self.pitch_head.hertz(log_f0), self.hop, lengths)
        gate = sample_frames(voicing, self.hop, lengths)
        start = torch.zeros(f0.size(0), 1, dtype=torch.int64, device=f0.device)
        phase = pulse_phase(f0, gate, SAMPLE_RATE, clock)
        if clock is not None:
            start = start + clock.start
        elif self.training:  # crops begin anywhere
            phase = phase + torch.rand(f0.size(0), 1, device=f0.device, dtype=phase.dtype)
            start = torch.randint(NOISE_PERIOD, start.shape, device=f0.device)
        index = (torch.arange(f0.size(1), device=f0.device) + start) % NOISE_PERIOD
        return pulses(phase, f0, SAMPLE_RATE) * gate, self.noise[index]

    def _filter(
        self, gains: Tensor, harmonic: Tensor, noise: Tensor, mask: Tensor | None
    ) -> Tensor:
        magnitude, phase, noise_magnitude = gains.chunk(3, dim=2)
        magnitude = magnitude.exp().clamp(max=MAX_MAGNITUDE)
        response = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        spectrum = response * self._spectrum(harmonic, mask)
        spectrum = spectrum + noise_magnitude.exp().clamp(max=MAX_MAGNITUDE) * self._spectrum(
            noise, mask
        )
        frames = torch.fft.irfft(spectrum, self.n_fft, dim=2) * self.window
        weight = torch.ones_like(gains[:, :, :1]) if mask is None else mask.float()[:, :, None]
        envelope = overlap_add(weight * self.window**2, self.hop).clamp(min=MIN_ENVELOPE)
        wav = overlap_add(frames * weight, self.hop) / envelope
        if mask is not None:
            wav = wav * mask.float().repeat_interleave(self.hop, dim=1)
        return wav[:, None]

    def _spectrum(self, wav: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the (B, L, n_fft / 2 + 1) spectra of windows round each frame's middle."""
        if mask is not None:
            wav = wav * mask.float().repeat_interleave(self.hop, dim=1)
        margin, count = (self.n_fft - self.hop) // 2, wav.size(1) // self.hop
        blocks = F.pad(wav, (margin, margin)).view(wav.size(0), -1, self.hop)
        parts = [blocks[:, part : part + count] for part in range(self.n_fft // self.hop)]
        return torch.fft.rfft(torch.cat(parts, dim=2) * self.window, dim=2)

    def remove_weight_norm(self) -> None:
        """Does nothing: there is none. Every generator has this method."""
