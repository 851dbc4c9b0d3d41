"""MSCA, the gating unit of SegNeXt (Guo et al., NeurIPS 2022, arXiv 2209.08575, Eq. 1)."""

from __future__ import annotations

from mmcv.cnn.bricks.registry import ATTENTION
from torch import Tensor, nn


def depthwise_conv(channels: int, kernel_size: tuple[int, int], dilation: int = 1) -> nn.Conv2d:
    """Return a depthwise convolution with bias that keeps the spatial size (odd kernels)."""
    padding = (dilation * (kernel_size[0] - 1) // 2, dilation * (kernel_size[1] - 1) // 2)
    return nn.Conv2d(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)


@ATTENTION.register_module()
class MSCA(nn.Module):
    """Multi-scale convolutional attention: a 5x5 depthwise conv, three strip pairs, a 1x1 conv, a gate.

    Args:
        channels: number of channels C.
        kernel_size: size of the first, square depthwise convolution.
        strip_lengths: length k of each pair of 1xk and kx1 depthwise convolutions.
    """

    def __init__(self, channels: int, kernel_size: int = 5, strip_lengths: tuple[int, ...] = (7, 11, 21)) -> None:
        super().__init__()
        self.conv0 = depthwise_conv(channels, (kernel_size, kernel_size))
        self.num_strips = len(strip_lengths)
        for i, length in enumerate(strip_lengths):
            self.add_module(f"conv{i}_1", depthwise_conv(channels, (1, length)))
            self.add_module(f"conv{i}_2", depthwise_conv(channels, (length, 1)))
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape (B, C, H, W) with its multi-scale context; the shape stays."""
        local = self.conv0(x)
        context = local
        for i in range(self.num_strips):
            context = context + getattr(self, f"conv{i}_2")(getattr(self, f"conv{i}_1")(local))
        return self.conv3(context) * x
