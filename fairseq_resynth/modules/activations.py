"""Activations of the HiFi-GAN generator."""

import torch
from torch import Tensor, nn

ACTIVATIONS = ("leaky-relu", "snake")


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, alpha learned for each channel: it repeats itself, as voiced speech does.

    Ziyin et al., 2020, arXiv 2006.08195, equation 3; in a vocoder BigVGAN (Lee et al., 2022, arXiv
    2206.04658), whose filters against aliasing are left out. alpha starts at 1 and stays positive, since its
    logarithm is learned.

    Args:
        channels: of the input.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, ...) to the same shape and precision; the sine of 16-bit values is taken in float32."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        alpha = self.log_alpha.to(wide.dtype).exp().view(-1, *[1] * (x.ndim - 2))
        return (wide + (alpha * wide).sin().square() / alpha).to(x.dtype)


def make_activation(name: str, channels: int, slope: float, in_place: bool = False) -> nn.Module:
    """Builds an activation.

    Args:
        name: of `ACTIVATIONS`.
        channels: of its input.
        slope: of the leaky ReLU below 0.
        in_place: whether a leaky ReLU may overwrite its input.

    Raises:
        ValueError: another name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"--activation is {name!r}, expected {' or '.join(ACTIVATIONS)}.")
    return Snake(channels) if name == "snake" else nn.LeakyReLU(slope, in_place)
