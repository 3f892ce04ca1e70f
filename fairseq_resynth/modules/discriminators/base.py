"""What all discriminators share: their output, the pass through their layers, and families of them."""

import torch.nn.functional as F
from torch import Tensor, nn

LEAKY_RELU_SLOPE = 0.1

# The scores (B, n) of one discriminator, near 1 for real speech, and the activations of all its layers.
Output = tuple[Tensor, list[Tensor]]
# The scores and the activations of several discriminators.
Outputs = tuple[list[Tensor], list[list[Tensor]]]


def scaled(channels: int, width: float) -> int:
    """The channels of a layer at a factor on the published number, at least 1."""
    return max(1, round(channels * width))


class Discriminator(nn.Module):
    """Layers with a leaky ReLU of slope `slope` after each, and a last layer whose outputs are the scores."""

    def __init__(
        self, layers: list[nn.Module], score_layer: nn.Module, slope: float = LEAKY_RELU_SLOPE
    ):
        super().__init__()
        self.convs = nn.ModuleList(layers)
        self.conv_post = score_layer
        self.slope = slope

    def prepare(self, wav: Tensor) -> Tensor:
        """Maps a waveform (B, 1, T) to the input of the first layer: the waveform unless overridden."""
        return wav

    def forward(self, wav: Tensor) -> Output:
        """Maps (B, 1, T) to scores and feature maps."""
        x = self.prepare(wav)
        feature_maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.slope)
            feature_maps.append(x)
        x = self.conv_post(x)
        return x.flatten(1), [*feature_maps, x]


class DiscriminatorFamily(nn.ModuleList):
    """Discriminators of one kind and different sizes, all on the same waveform."""

    def forward(self, wav: Tensor) -> list[Output]:
        """Maps (B, 1, T) to the output of each discriminator."""
        return [discriminator(wav) for discriminator in self]


class Discriminators(nn.ModuleDict):
    """Families of discriminators on the same waveform; their weights' names begin with the keys."""

    def forward(self, wav: Tensor) -> Outputs:
        """Maps (B, 1, T) to the scores and the feature maps of each discriminator."""
        outputs = [output for family in self.values() for output in family(wav)]
        scores, feature_maps = zip(*outputs, strict=True)
        return list(scores), list(feature_maps)


def freeze(module: nn.Module, frozen: bool) -> None:
    """Turns the gradients of all parameters off (frozen) or on."""
    for parameter in module.parameters():
        parameter.requires_grad_(not frozen)


def detach(feature_maps: list[list[Tensor]]) -> list[list[Tensor]]:
    """The feature maps without their autograd graph."""
    return [[feature_map.detach() for feature_map in maps] for maps in feature_maps]
