"""Discriminators that judge the short-time Fourier transform of a waveform as an image of time by frequency.

`mrd` sees magnitudes (UnivNet: Jang et al., 2021, arXiv 2106.07889), `msstft` the complex spectrum (EnCodec:
Défossez et al., 2022, arXiv 2210.13438), `mbstft` the complex spectrum in bands with weights of their own
(DAC: Kumar et al., 2023, arXiv 2306.06546; Vocos uses it too). Windows are the published ones in samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fairseq_resynth.modules.discriminators.waveforms import LEAKY_RELU_SLOPE, Judgement, judge

CHANNELS = 32
# UnivNet's and EnCodec's; HiFi-GAN and DAC have LEAKY_RELU_SLOPE
IMAGE_SLOPE = 0.2
# (points of the transform, hop, window) in samples
UNIVNET_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
ENCODEC_WINDOWS = (2048, 1024, 512, 256, 128)
DAC_WINDOWS = (2048, 1024, 512)
# of half the sample rate
DAC_BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


class Stft(nn.Module):
    """Complex spectrum over the window's energy, frames centred and reflection padded.

    Args:
        n_fft: points of the transform.
        hop: samples between frames.
        window: samples of the Hann window, at most n_fft.
    """

    def __init__(self, n_fft: int, hop: int, window: int):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        hann = torch.hann_window(window)
        # Not saved: it follows from the arguments.
        self.register_buffer("window", hann / hann.square().sum().sqrt(), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T), T over n_fft / 2, to complex64 (B, T // hop + 1, n_fft / 2 + 1)."""
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = torch.stft(
                wav.float().squeeze(1),
                self.n_fft,
                self.hop,
                self.window.numel(),
                self.window,
                return_complex=True,
            )
            return spectrum.transpose(1, 2)


def as_image(spectrum: Tensor) -> Tensor:
    """Maps (B, M, K) complex to (B, 2, M, K): real and imaginary parts as channels."""
    return torch.stack([spectrum.real, spectrum.imag], dim=1)


def thin(width: float) -> int:
    """Returns the channels at a factor on the published 32, at least 1."""
    return max(1, round(CHANNELS * width))


def image_layers(before: int, channels: int, dilations: Sequence[int] = (1, 1, 1)) -> nn.ModuleList:
    """Builds what all of these papers use: a 3 x 9 convolution, one for each dilation in time at half the
    frequencies of the layer before, and a 3 x 3.
    """
    layers = [nn.Conv2d(before, channels, (3, 9), padding=(1, 4))]
    for dilation in dilations:
        sizes = {"stride": (1, 2), "dilation": (dilation, 1), "padding": (dilation, 4)}
        layers.append(nn.Conv2d(channels, channels, (3, 9), **sizes))
    layers.append(nn.Conv2d(channels, channels, 3, padding=1))
    return nn.ModuleList([weight_norm(layer) for layer in layers])


def score_layer(channels: int) -> nn.Module:
    """Builds the layer behind `image_layers` that scores every place."""
    return weight_norm(nn.Conv2d(channels, 1, 3, padding=1))


class MagnitudeDiscriminator(nn.Module):
    """UnivNet's: the magnitudes at one resolution.

    Args:
        resolution: (points, hop, window) in samples.
        width: factor on the published channels.
    """

    def __init__(self, resolution: tuple[int, int, int], width: float = 1.0):
        super().__init__()
        self.stft = Stft(*resolution)
        self.convs = image_layers(1, thin(width))
        self.conv_post = score_layer(thin(width))

    def forward(self, wav: Tensor) -> Judgement:
        """Judges (B, 1, T)."""
        spectrum = self.stft(wav)
        # The square root of zero has no gradient.
        magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
        return judge(magnitude[:, None], self.convs, self.conv_post, IMAGE_SLOPE)


class ComplexDiscriminator(nn.Module):
    """EnCodec's: real and imaginary parts at one window, a hop of a quarter, dilations 1, 2, 4 in time.

    Args:
        window: in samples.
        width: factor on the published channels.
    """

    def __init__(self, window: int, width: float = 1.0):
        super().__init__()
        self.stft = Stft(window, window // 4, window)
        self.convs = image_layers(2, thin(width), (1, 2, 4))
        self.conv_post = score_layer(thin(width))

    def forward(self, wav: Tensor) -> Judgement:
        """Judges (B, 1, T)."""
        return judge(as_image(self.stft(wav)), self.convs, self.conv_post, IMAGE_SLOPE)


class BandDiscriminator(nn.Module):
    """DAC's: the complex spectrum cut into five bands, each with layers of its own.

    Args:
        window: in samples; the hop is a quarter.
        width: factor on the published channels.
    """

    def __init__(self, window: int, width: float = 1.0):
        super().__init__()
        self.stft = Stft(window, window // 4, window)
        bins = window // 2 + 1
        self.edges = [(int(low * bins), int(high * bins)) for low, high in DAC_BANDS]
        self.bands = nn.ModuleList([image_layers(2, thin(width)) for _ in DAC_BANDS])
        self.conv_post = score_layer(thin(width))

    def forward(self, wav: Tensor) -> Judgement:
        """Judges (B, 1, T) without its mean and at a peak of 0.8; maps go by band, low to high."""
        wav = wav.float() - wav.float().mean(2, keepdim=True)
        wav = 0.8 * wav / (wav.abs().amax(2, keepdim=True) + 1e-9)
        image = as_image(self.stft(wav))
        feature_maps, ends = [], []
        for (low, high), convs in zip(self.edges, self.bands, strict=True):
            band = image[..., low:high]
            for conv in convs:
                band = nn.functional.leaky_relu(conv(band), LEAKY_RELU_SLOPE)
                feature_maps.append(band)
            ends.append(band)
        scores = self.conv_post(torch.cat(ends, dim=3))
        return scores.flatten(1), [*feature_maps, scores]


class SpectrogramDiscriminators(nn.ModuleList):
    """One discriminator a resolution or window; maps (B, 1, T) to a list of judgements."""

    def forward(self, wav: Tensor) -> list[Judgement]:
        """Judges (B, 1, T)."""
        return [discriminator(wav) for discriminator in self]


def magnitude_discriminators(width: float = 1.0) -> SpectrogramDiscriminators:
    """Builds UnivNet's three resolutions."""
    nets = [MagnitudeDiscriminator(resolution, width) for resolution in UNIVNET_RESOLUTIONS]
    return SpectrogramDiscriminators(nets)


def complex_discriminators(width: float = 1.0) -> SpectrogramDiscriminators:
    """Builds EnCodec's five windows."""
    return SpectrogramDiscriminators(
        [ComplexDiscriminator(size, width) for size in ENCODEC_WINDOWS]
    )


def band_discriminators(width: float = 1.0) -> SpectrogramDiscriminators:
    """Builds DAC's three windows."""
    return SpectrogramDiscriminators([BandDiscriminator(size, width) for size in DAC_WINDOWS])
