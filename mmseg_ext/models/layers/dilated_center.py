"""The dilated centre of D-LinkNet (Zhou et al., CVPR Workshops 2018) and DUNet."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class DilatedCenter(nn.Module):
    """3x3 convolutions in series, one per dilation, ReLU after each; all results are summed.

    Args:
        in_channels: channels of the input.
        channels: channels of every result.
        dilations: dilation of each convolution.
        add_input: add the input to the sum (needs ``in_channels == channels``).
    """

    def __init__(self, in_channels: int, channels: int, dilations: Sequence[int], add_input: bool) -> None:
        super().__init__()
        self.num_convs = len(dilations)
        self.add_input = add_input
        for i, dilation in enumerate(dilations, start=1):
            conv = nn.Conv2d(in_channels if i == 1 else channels, channels, 3, padding=dilation, dilation=dilation)
            self.add_module(f"dilate{i}", conv)

    def forward(self, x: Tensor) -> Tensor:
        """Return the summed context of ``x`` (B, in_channels, H, W) as (B, channels, H, W)."""
        results = [x]
        for i in range(1, self.num_convs + 1):
            results.append(F.relu(getattr(self, f"dilate{i}")(results[-1])))
        return functools.reduce(operator.add, results if self.add_input else results[1:])
