"""The losses of HiFi-GAN as pure functions, and the log-mel spectrograms that they compare."""

import librosa
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def discriminator_loss(real_scores: list[Tensor], fake_scores: list[Tensor]) -> Tensor:
    """Least-squares loss of the discriminators, summed over them (HiFi-GAN, equation 1).

    The scores (B, n) of each have the target 1 on real and 0 on generated speech.
    """
    pairs = zip(real_scores, fake_scores, strict=True)
    return sum(
        ((1 - real.float()) ** 2).mean() + (fake.float() ** 2).mean() for real, fake in pairs
    )


def generator_loss(fake_scores: list[Tensor]) -> Tensor:
    """Least-squares adversarial loss of the generator, summed over discriminators (HiFi-GAN, equation 2)."""
    return sum(((1 - fake.float()) ** 2).mean() for fake in fake_scores)


def hinge_discriminator_loss(real_scores: list[Tensor], fake_scores: list[Tensor]) -> Tensor:
    """Hinge loss of the discriminators, summed over them: targets over 1 for real speech, under -1 otherwise.

    SoundStream (Zeghidour et al., 2021, arXiv 2107.03312, equation 1), which takes the mean over them.
    """
    pairs = zip(real_scores, fake_scores, strict=True)
    return sum(
        F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean() for real, fake in pairs
    )


def hinge_generator_loss(fake_scores: list[Tensor]) -> Tensor:
    """Hinge loss of the generator, summed; 0 for scores over 1 (SoundStream, equation 2)."""
    return sum(F.relu(1 - fake.float()).mean() for fake in fake_scores)


# name: (loss of the discriminators, loss of the generator)
ADVERSARIAL_LOSSES = {
    "least-squares": (discriminator_loss, generator_loss),
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
}


def feature_matching_loss(real_maps: list[list[Tensor]], fake_maps: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of each feature map, summed over layers (HiFi-GAN, equation 4)."""
    loss = 0.0
    for real_layers, fake_layers in zip(real_maps, fake_maps, strict=True):
        for real, fake in zip(real_layers, fake_layers, strict=True):
            loss = loss + F.l1_loss(fake.float(), real.float())
    return loss


class LogMelSpectrogram(nn.Module):
    """HiFi-GAN's log-mel spectrogram: reflection padded, natural logarithm of magnitudes of at least 1e-5.

    The bands are librosa's Slaney filters from 0 Hz to half the sample rate; window and hop are in samples.
    """

    def __init__(
        self, sample_rate: int = 16000, num_mels: int = 80, n_fft: int = 1024, hop: int = 256
    ):
        super().__init__()
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=num_mels, fmin=0)
        self.n_fft = n_fft
        self.hop = hop
        # Not saved, since both follow from the arguments.
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T) samples to (B, num_mels, M) with M = T // hop; always in float32."""
        with torch.autocast(wav.device.type, enabled=False):
            margin = (self.n_fft - self.hop) // 2
            # A recording shorter than the margin cannot be reflected; it is padded with zeros first.
            shortfall = max(0, margin + 1 - wav.size(2))
            padded = F.pad(F.pad(wav.float(), (0, shortfall)), (margin, margin), "reflect")
            sizes = {"n_fft": self.n_fft, "hop_length": self.hop, "window": self.window}
            spectrum = torch.stft(padded.squeeze(1), **sizes, center=False, return_complex=True)
            magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
            return torch.log((self.filters @ magnitude).clamp(min=1e-5))


def mel_l1(real: Tensor, fake: Tensor, num_frames: Tensor | None = None) -> Tensor:
    """Mean absolute difference of two log-mel spectrograms (B, num_mels, M), in nepers.

    `num_frames` (B,) is the number of frames that count in each row; None: all.
    """
    difference = (real - fake).abs()
    if num_frames is None:
        return difference.mean()
    mask = torch.arange(real.size(2), device=real.device) < num_frames[:, None]
    return (difference * mask[:, None]).sum() / (mask.sum() * real.size(1)).clamp(min=1)


# (samples of a window, bands, hop) of each scale of `--mel-loss`; `multi` is DAC's (Kumar et al., 2023).
MEL_SCALES = {
    "single": ((1024, 80, 256),),
    "multi": tuple((32 << scale, 5 << scale, 8 << scale) for scale in range(7)),
}


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel spectrograms, averaged over scales with equal weights.

    DAC sums its seven scales in log10 at a weight of 15. The mean in natural logarithms is that sum times
    0.329, so the paper's weight of 45 is DAC's within 1.3 %. `scales` is a value of `MEL_SCALES`.
    """

    def __init__(self, sample_rate: int, scales: tuple[tuple[int, int, int], ...]):
        super().__init__()
        log_mels = [LogMelSpectrogram(sample_rate, bands, n, hop) for n, bands, hop in scales]
        self.log_mels = nn.ModuleList(log_mels)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The mean over scales, in nepers, for recordings and generated speech (B, 1, T)."""
        differences = [mel_l1(log_mel(real), log_mel(fake)) for log_mel in self.log_mels]
        return sum(differences) / len(differences)
