"""The decoder block that LinkNet, D-LinkNet and NL-LinkNet share."""

from __future__ import annotations

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn


class LinkNetDecoder(nn.Module):
    """1x1 conv to a quarter of the channels, transposed 3x3 conv to twice the size, 1x1 conv; norm and ReLU each."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        inner = in_channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1)
        self.norm1 = build_norm_layer(norm_cfg, inner)[1]
        self.deconv2 = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1)
        self.norm2 = build_norm_layer(norm_cfg, inner)[1]
        self.conv3 = nn.Conv2d(inner, channels, 1)
        self.norm3 = build_norm_layer(norm_cfg, channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, channels, 2H, 2W) of ``x`` (B, in_channels, H, W)."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.deconv2(x)))
        return F.relu(self.norm3(self.conv3(x)))
