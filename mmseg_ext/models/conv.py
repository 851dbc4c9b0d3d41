"""Small pieces that the CNN baselines share."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Return ``x`` (B, C, H, W) with zeros added below and at the right until H and W are multiples of ``divisor``."""
    height, width = x.shape[2:]
    below, right = -height % divisor, -width % divisor
    return F.pad(x, (0, right, 0, below)) if below or right else x


def double_conv(in_channels: int, channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def up_conv(in_channels: int, channels: int) -> nn.Sequential:
    """Return a 4x4 transposed convolution with ReLU that doubles the size."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, channels, 4, stride=2, padding=1, bias=False), nn.ReLU(inplace=True)
    )


def initialise_convs(module: nn.Module) -> None:
    """Draw the weights of all convolutions in ``module`` from N(0, sqrt(2 / fan)) and set their biases to 0.

    ``fan`` is the fan-out of a convolution, as ResNet and MSCAN use it (He et al., arXiv 1502.01852), and for a
    transposed convolution the number of products that one output value sums.
    """
    for layer in module.modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        fan = math.prod(layer.kernel_size) // layer.groups
        if isinstance(layer, nn.ConvTranspose2d):
            fan = fan * layer.in_channels // math.prod(layer.stride)
        else:
            fan = fan * layer.out_channels
        nn.init.normal_(layer.weight, 0, math.sqrt(2.0 / fan))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
