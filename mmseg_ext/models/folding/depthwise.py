"""Dilated depthwise convolutions that CPUs are fast at."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .rules import fold

# oneDNN's vectorised kernel for dilated depthwise convolutions takes no wider padding
MAX_PADDING = 6


class PaddedFirstConv(nn.Conv2d):
    """A convolution that on CPUs pads its input itself.

    oneDNN has no fast dilated depthwise convolution with a wide padding and computes it as one dense convolution per
    channel, which takes four times as long; without padding it has one.
    """

    padding: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features; the values are those of ``nn.Conv2d``."""
        if not x.is_cpu:
            return super().forward(x)
        height, width = self.padding
        x = F.pad(x, (width, width, height, height))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


@fold.register
def _(module: nn.Conv2d) -> nn.Module:
    if type(module) is not nn.Conv2d or module.groups == 1 or isinstance(module.padding, str):
        return module
    if module.padding_mode == "zeros" and max(module.dilation) > 1 and max(module.padding) > MAX_PADDING:
        module.__class__ = PaddedFirstConv
    return module
