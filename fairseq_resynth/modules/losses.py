"""The losses of HiFi-GAN as pure functions, and the log-mel spectrograms that they compare."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@functools.lru_cache(maxsize=64)
def _reciprocals(sizes: tuple[int, ...], device: torch.device, repeat: bool = False) -> Tensor:
    """1 / size of each tensor; with `repeat` for each of its values. Kept, since copies to a GPU are slow."""
    values = torch.tensor([1 / size for size in sizes])
    return (values.repeat_interleave(torch.tensor(sizes)) if repeat else values).to(device)


def _mean_of(function: Callable[[Tensor], Tensor], scores: list[Tensor]) -> Tensor:
    """The mean of a function of each discriminator's scores, summed over them."""
    if torch.compiler.is_compiling():  # the compiler joins the operations itself
        return sum(function(score.float()).mean() for score in scores)
    # The scores of all discriminators are joined, so that the function is computed once and not for each.
    joined = torch.cat([score.flatten() for score in scores]).float()
    sizes = tuple(score.numel() for score in scores)
    return (function(joined) * _reciprocals(sizes, joined.device, repeat=True)).sum()


def discriminator_loss(real_scores: list[Tensor], fake_scores: list[Tensor]) -> Tensor:
    """Least-squares loss of the discriminators, summed over them (HiFi-GAN, equation 1).

    The scores (B, n) of each have the target 1 on real and 0 on generated speech.
    """
    return _mean_of(lambda real: (1 - real) ** 2, real_scores) + _mean_of(
        lambda fake: fake**2, fake_scores
    )


def generator_loss(fake_scores: list[Tensor]) -> Tensor:
    """Least-squares adversarial loss of the generator, summed over discriminators (HiFi-GAN, equation 2)."""
    return _mean_of(lambda fake: (1 - fake) ** 2, fake_scores)


def hinge_discriminator_loss(real_scores: list[Tensor], fake_scores: list[Tensor]) -> Tensor:
    """Hinge loss of the discriminators, summed over them: targets over 1 for real speech, under -1 otherwise.

    SoundStream (Zeghidour et al., 2021, arXiv 2107.03312, equation 1), which takes the mean over them.
    """
    return _mean_of(lambda real: F.relu(1 - real), real_scores) + _mean_of(
        lambda fake: F.relu(1 + fake), fake_scores
    )


def hinge_generator_loss(fake_scores: list[Tensor]) -> Tensor:
    """Hinge loss of the generator, summed; 0 for scores over 1 (SoundStream, equation 2)."""
    return _mean_of(lambda fake: F.relu(1 - fake), fake_scores)


# name: (loss of the discriminators, loss of the generator)
ADVERSARIAL_LOSSES = {
    "least-squares": (discriminator_loss, generator_loss),
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
}


class _FeatureMatching(torch.autograd.Function):
    """The sum of the mean absolute differences of lists of tensors, each operation one call for all of them.

    Takes the number of tensors n, n tensors that get gradients, and n that do not.
    """

    @staticmethod
    def forward(ctx, count: int, *tensors: Tensor) -> Tensor:
        fake, real = tensors[:count], tensors[count:]
        ctx.save_for_backward(*tensors)
        differences = torch._foreach_sub(_as_float32(fake), _as_float32(real))
        sums = _absolute_sums(differences)
        sizes = _reciprocals(tuple(each.numel() for each in fake), sums.device)
        return (sums * sizes).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        tensors = ctx.saved_tensors
        count = len(tensors) // 2
        fake, real = tensors[:count], tensors[count:]
        # The sign of a difference is exact in every precision.
        gradients = torch._foreach_sub(fake, real)
        torch._foreach_sign_(gradients)
        torch._foreach_mul_(gradients, gradient)
        torch._foreach_mul_(gradients, [1 / each.numel() for each in fake])
        return None, *gradients, *[None] * count


def _absolute_sums(tensors: Sequence[Tensor]) -> Tensor:
    """The sums of the absolute values of n tensors, (n,) float32."""
    # A processor adds one value after the other here, which in float32 would lose digits.
    precision = torch.float64 if tensors[0].device.type == "cpu" else torch.float32
    return torch.stack(torch._foreach_norm(tensors, 1, dtype=precision)).float()


def _as_float32(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors in float32; those in another precision are converted by one call."""
    if all(each.dtype == torch.float32 for each in tensors):
        return tensors
    wide = [torch.empty_like(each, dtype=torch.float32) for each in tensors]
    torch._foreach_copy_(wide, tensors)
    return wide


def feature_matching_loss(real_maps: list[list[Tensor]], fake_maps: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of each feature map, summed over layers (HiFi-GAN, equation 4).

    Only the maps of generated speech get gradients.
    """
    real, fake = ([each for maps in family for each in maps] for family in (real_maps, fake_maps))
    if torch.compiler.is_compiling():  # the compiler joins the operations itself
        pairs = zip(real, fake, strict=True)
        return sum(F.l1_loss(ours.float(), theirs.detach().float()) for theirs, ours in pairs)
    return _FeatureMatching.apply(len(fake), *fake, *[each.detach() for each in real])


def slaney_filters(sample_rate: int, n_fft: int, num_mels: int) -> np.ndarray:
    """Triangular mel filters of equal area from 0 Hz to half the rate: (num_mels, n_fft // 2 + 1) float32.

    The scale of Slaney's Auditory Toolbox (1998) is linear up to 1000 Hz and logarithmic above. The filters
    equal those of librosa, which takes seconds to import and to compile.
    """
    linear, octaves = 3 / 200, 27 / np.log(6.4)  # mels per Hz, and per natural logarithm of a ratio
    knee = 1000 * linear
    top = sample_rate / 2
    top = knee + octaves * np.log(top / 1000) if top >= 1000 else top * linear
    mels = np.linspace(0, top, num_mels + 2)
    hertz = np.where(mels < knee, mels / linear, 1000 * np.exp((mels - knee) / octaves))
    ramps = hertz[:, None] - np.fft.rfftfreq(n_fft, 1 / sample_rate)
    widths = np.diff(hertz)[:, None]
    triangles = np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:])
    filters = np.maximum(0, triangles).astype(np.float32)
    return (filters * (2 / (hertz[2:] - hertz[:-2]))[:, None]).astype(np.float32)


MIN_MEL = 1e-5
POWER_FLOOR = 1e-9  # a square root of 0 has no derivative


class LogMelSpectrogram(nn.Module):
    """HiFi-GAN's log-mel spectrogram: reflection padded, natural logarithm of magnitudes of at least 1e-5.

    The bands are those of `slaney_filters`; window and hop are in samples.
    """

    def __init__(
        self, sample_rate: int = 16000, num_mels: int = 80, n_fft: int = 1024, hop: int = 256
    ):
        super().__init__()
        filters = slaney_filters(sample_rate, n_fft, num_mels)
        self.n_fft = n_fft
        self.hop = hop
        self.margin = (n_fft - hop) // 2
        # Not saved, since both follow from the arguments.
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        # An inverse transform counts the bins between the first and the last twice, a derivative once.
        halves = torch.full((1, n_fft // 2 + 1), 0.5)
        halves[:, [0, -1]] = 1
        self.register_buffer("halved_filters", self.filters * halves, persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Maps (B, 1, T) samples to (B, num_mels, M) with M = T // hop; always in float32."""
        with torch.autocast(wav.device.type, enabled=False):
            margin = self.margin
            # A recording shorter than the margin cannot be reflected; it is padded with zeros first.
            shortfall = max(0, margin + 1 - wav.size(2))
            padded = F.pad(F.pad(wav.float(), (0, shortfall)), (margin, margin), "reflect")
            sizes = {"n_fft": self.n_fft, "hop_length": self.hop, "window": self.window}
            spectrum = torch.stft(padded.squeeze(1), **sizes, center=False, return_complex=True)
            magnitude = (spectrum.real**2 + spectrum.imag**2 + POWER_FLOOR).sqrt()
            return torch.log((self.filters @ magnitude).clamp(min=MIN_MEL))


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
        self.margin = max(log_mel.margin for log_mel in log_mels)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The mean over scales, in nepers, for recordings and generated speech (B, 1, T).

        Only the generated speech gets gradients.
        """
        if torch.compiler.is_compiling() or fake.size(2) <= self.margin:
            differences = [mel_l1(log_mel(real), log_mel(fake)) for log_mel in self.log_mels]
            return sum(differences) / len(differences)
        with torch.autocast(fake.device.type, enabled=False):
            return _MelDistance.apply(fake[:, 0].float(), real[:, 0].float(), self)


class _MelDistance(torch.autograd.Function):
    """`MelLoss` of fake and real (B, T) in a fifth of the calls that autograd would make.

    Both are padded and transformed together, each operation on values is one call for all scales, and the
    derivative is written out: that of a real Fourier transform is an inverse one.
    """

    @staticmethod
    def forward(ctx, fake: Tensor, real: Tensor, mel_loss: MelLoss) -> Tensor:
        log_mels, margin, rows = mel_loss.log_mels, mel_loss.margin, len(fake)
        padded = F.pad(torch.cat([fake, real]), (margin, margin), "reflect")
        spectra = [_spectrum(padded, margin, log_mel) for log_mel in log_mels]
        # All scales of the generated speech one after the other, then those of the recordings.
        joined = [z[:rows].flatten() for z in spectra] + [z[rows:].flatten() for z in spectra]
        spectrum = torch.cat(joined)
        magnitude = torch.view_as_real(spectrum).square().sum(1).add_(POWER_FLOOR).sqrt_()
        frames = [rows * each.size(1) for each in spectra]
        mels = _products(magnitude, frames * 2, [each.filters.T for each in log_mels] * 2)
        logs = mels.clamp_(min=MIN_MEL).log().view(2, -1)
        difference = logs[0] - logs[1]
        sizes = [count * len(each.filters) for count, each in zip(frames, log_mels, strict=True)]
        sums = _absolute_sums(difference.split(sizes))
        ctx.mel_loss, ctx.frames, ctx.sizes, ctx.shape = mel_loss, frames, sizes, fake.shape
        ctx.save_for_backward(
            *(each.chunk(2)[0] for each in (spectrum, magnitude, mels)), difference
        )
        return (sums * _reciprocals(tuple(sizes), sums.device)).sum() / len(sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        spectrum, magnitude, mels, difference = ctx.saved_tensors
        log_mels, margin = ctx.mel_loss.log_mels, ctx.mel_loss.margin
        of_logs = difference.sign().mul_(gradient)
        scales = [1 / (size * len(ctx.sizes)) for size in ctx.sizes]
        torch._foreach_mul_(of_logs.split(ctx.sizes), scales)
        of_mels = of_logs.div_(mels).mul_(mels > MIN_MEL)
        filters = [each.halved_filters for each in log_mels]
        of_magnitude = _products(of_mels, ctx.frames, filters)
        of_spectrum = spectrum * of_magnitude.div_(magnitude)
        parts = of_spectrum.split([n * f.size(1) for n, f in zip(ctx.frames, filters, strict=True)])
        total = gradient.new_zeros(ctx.shape[0], ctx.shape[1] + 2 * margin)
        for part, each in zip(parts, log_mels, strict=True):
            part = part.view(ctx.shape[0], -1, each.filters.size(1))
            windows = torch.fft.irfft(part, each.n_fft, norm="forward").mul_(each.window)
            inside = total[:, margin - each.margin : total.size(1) - margin + each.margin]
            inside += torch.ops.aten.unfold_backward(windows, inside.shape, 1, each.n_fft, each.hop)
        padding = [margin, margin]
        empty = total.new_empty(ctx.shape)
        return torch.ops.aten.reflection_pad1d_backward(total, empty, padding), None, None


def _spectrum(padded: Tensor, margin: int, log_mel: LogMelSpectrogram) -> Tensor:
    """The spectra (B, M, K) of recordings that are padded by `margin`, at least the scale's own."""
    inside = padded[:, margin - log_mel.margin : padded.size(1) - margin + log_mel.margin]
    return torch.fft.rfft(inside.unfold(1, log_mel.n_fft, log_mel.hop) * log_mel.window)


def _products(values: Tensor, rows: list[int], matrices: list[Tensor]) -> Tensor:
    """The products of joined matrices, of which each has `rows` rows, with `matrices`, joined again."""
    pairs = list(zip(rows, matrices, strict=True))
    result = values.new_empty(sum(count * matrix.size(1) for count, matrix in pairs))
    parts = values.split([count * matrix.size(0) for count, matrix in pairs])
    targets = result.split([count * matrix.size(1) for count, matrix in pairs])
    for part, target, (count, matrix) in zip(parts, targets, pairs, strict=True):
        torch.mm(part.view(count, -1), matrix, out=target.view(count, -1))
    return result
