"""Discriminators on the short-time Fourier transform of a waveform, an image of time by frequency.

`mrd` takes magnitudes (UnivNet: Jang et al., 2021, arXiv 2106.07889), `msstft` the complex spectrum (EnCodec:
Défossez et al., 2022, arXiv 2210.13438), `mbstft` the complex spectrum in bands with weights of their own
(DAC: Kumar et al., 2023, arXiv 2306.06546; Vocos uses it too). Windows are the published ones in samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fairseq_resynth.modules.discriminators.base import (
    LEAKY_RELU_SLOPE,
    Discriminator,
    DiscriminatorFamily,
    Output,
    scaled,
)

CHANNELS = 32
IMAGE_SLOPE = 0.2  # UnivNet's and EnCodec's; HiFi-GAN and DAC have LEAKY_RELU_SLOPE
# (points of the transform, hop, window) in samples
UNIVNET_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
ENCODEC_WINDOWS = (2048, 1024, 512, 256, 128)
DAC_WINDOWS = (2048, 1024, 512)
# Shares of the Nyquist frequency.
DAC_BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


class Stft(nn.Module):
    """Complex spectrum, divided by the norm of the Hann window; frames are centered and reflection padded."""

    def __init__(self, n_fft: int, hop: int, window: int):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        hann = torch.hann_window(window)
        # Not saved, since it follows from the arguments.
        self.register_buffer("window", hann / hann.square().sum().sqrt(), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T), T > n_fft / 2, to complex64 (B, T // hop + 1, n_fft / 2 + 1)."""
        with torch.autocast(wav.device.type, enabled=False):
            wav, sizes = wav.float().squeeze(1), (self.n_fft, self.hop, self.window.numel())
            return torch.stft(wav, *sizes, self.window, return_complex=True).transpose(1, 2)


def as_image(spectrum: Tensor) -> Tensor:
    """Maps (B, M, K) complex to (B, 2, M, K): real and imaginary parts as channels."""
    return torch.stack([spectrum.real, spectrum.imag], dim=1)


def _image_layers(
    channels_in: int, width: float, dilations: Sequence[int] = (1, 1, 1)
) -> list[nn.Module]:
    # A 3 x 9 convolution, then one for each dilation in time that halves the frequencies, and a 3 x 3 one.
    channels = scaled(CHANNELS, width)
    layers = [nn.Conv2d(channels_in, channels, (3, 9), padding=(1, 4))]
    for dilation in dilations:
        sizes = {"stride": (1, 2), "dilation": (dilation, 1), "padding": (dilation, 4)}
        layers.append(nn.Conv2d(channels, channels, (3, 9), **sizes))
    layers.append(nn.Conv2d(channels, channels, 3, padding=1))
    return [weight_norm(layer) for layer in layers]


def _score_layer(width: float) -> nn.Module:
    return weight_norm(nn.Conv2d(scaled(CHANNELS, width), 1, 3, padding=1))


class MagnitudeDiscriminator(Discriminator):
    """UnivNet's discriminator of the magnitudes at one resolution: (points, hop, window) in samples."""

    def __init__(self, resolution: tuple[int, int, int], width: float = 1.0):
        super().__init__(_image_layers(1, width), _score_layer(width), IMAGE_SLOPE)
        self.stft = Stft(*resolution)

    def prepare(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T) to magnitudes (B, 1, M, K)."""
        spectrum = self.stft(wav)
        # The square root of zero has no gradient.
        return (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()[:, None]


class ComplexDiscriminator(Discriminator):
    """EnCodec's discriminator of real and imaginary parts, with dilations of 1, 2 and 4 frames.

    The window is given in samples, and the hop is a quarter of it.
    """

    def __init__(self, window: int, width: float = 1.0):
        super().__init__(_image_layers(2, width, (1, 2, 4)), _score_layer(width), IMAGE_SLOPE)
        self.stft = Stft(window, window // 4, window)

    def prepare(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T) to (B, 2, M, K)."""
        return as_image(self.stft(wav))


class BandDiscriminator(nn.Module):
    """DAC's discriminator of the complex spectrum in five bands, each with its own layers.

    The window is given in samples, and the hop is a quarter of it.
    """

    def __init__(self, window: int, width: float = 1.0):
        super().__init__()
        self.stft = Stft(window, window // 4, window)
        bins = window // 2 + 1
        self.edges = [(int(low * bins), int(high * bins)) for low, high in DAC_BANDS]
        self.bands = nn.ModuleList([nn.ModuleList(_image_layers(2, width)) for _ in DAC_BANDS])
        self.conv_post = _score_layer(width)

    def forward(self, wav: Tensor) -> Output:
        """Maps (B, 1, T) to scores and feature maps, ordered by band from low to high.

        As published, the waveform is first freed of its mean and scaled to a peak of 0.8.
        """
        return self.score(self.normalize(wav))

    @staticmethod
    def normalize(wav: Tensor) -> Tensor:
        """Maps (B, 1, T) to (B, 1, T) float32 with a mean of 0 and a peak of 0.8."""
        wav = wav.float() - wav.float().mean(2, keepdim=True)
        return 0.8 * wav / (wav.abs().amax(2, keepdim=True) + 1e-9)

    def score(self, normalized: Tensor) -> Output:
        """Maps a normalized waveform (B, 1, T) to scores and feature maps."""
        image = as_image(self.stft(normalized))
        feature_maps, ends = [], []
        for (low, high), convs in zip(self.edges, self.bands, strict=True):
            band = image[..., low:high]
            for conv in convs:
                band = nn.functional.leaky_relu(conv(band), LEAKY_RELU_SLOPE)
                feature_maps.append(band)
            ends.append(band)
        scores = self.conv_post(torch.cat(ends, dim=3))
        return scores.flatten(1), [*feature_maps, scores]


class BandDiscriminators(DiscriminatorFamily):
    """DAC's three discriminators, for which the waveform is normalized once."""

    def __init__(self, width: float = 1.0):
        super().__init__([BandDiscriminator(window, width) for window in DAC_WINDOWS])

    def forward(self, wav: Tensor) -> list[Output]:
        """Maps (B, 1, T) to the output of each discriminator."""
        normalized = BandDiscriminator.normalize(wav)
        return [discriminator.score(normalized) for discriminator in self]
