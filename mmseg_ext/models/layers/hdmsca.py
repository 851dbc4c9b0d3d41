"""HDMSCA, the gating unit of D-SegNeXt (IEEE GRSL 2024, doi 10.1109/LGRS.2024.3397949)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks.registry import ATTENTION
from torch import Tensor, nn

from .msca import depthwise_conv


@ATTENTION.register_module()
class HDMSCA(nn.Module):
    """Hybrid dilated multi-scale convolutional attention.

    Depthwise convolutions in series, one per dilation; all intermediate results are concatenated,
    mixed by a 1x1 convolution and multiplied with the input. Every ablation of the paper is a setting.

    Args:
        channels: number of channels C.
        kernel_size: size of every depthwise convolution (odd).
        dilations: dilation of each convolution; (1, 1, 1, 1) is the paper's "w/o dilated conv".
        multi_scale: False keeps only the first convolution, without concatenation and 1x1 convolution.
        gate: False returns the context itself instead of multiplying it with the input
            (the paper's "w/o attention").
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        dilations: Sequence[int] = (1, 2, 5, 9),
        multi_scale: bool = True,
        gate: bool = True,
    ) -> None:
        super().__init__()
        dilations = tuple(dilations) if multi_scale else tuple(dilations)[:1]
        self.num_scales = len(dilations)
        for i, dilation in enumerate(dilations, start=1):
            self.add_module(f"conv1_{i}", depthwise_conv(channels, (kernel_size, kernel_size), dilation))
        self.conv2 = nn.Conv2d(self.num_scales * channels, channels, 1) if multi_scale else nn.Identity()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape (B, C, H, W) with its dilated context; the shape stays."""
        scales: list[Tensor] = []
        for i in range(1, self.num_scales + 1):
            scales.append(getattr(self, f"conv1_{i}")(scales[-1] if scales else x))
        context = self.conv2(torch.cat(scales, dim=1))
        return context * x if self.gate else context
