"""The non-local block of NL-LinkNet (Wang et al., arXiv 1711.07971, embedded Gaussian)."""

from __future__ import annotations

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn


class NonLocalBlock(nn.Module):
    """Every position attends to all positions of a map of half the size; the input is added back.

    The closing norm starts at zero, so that a new block changes nothing.

    Args:
        channels: channels of the input; the attention works on half of them.
        norm_cfg: the closing norm layer.
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        inner = channels // 2
        self.g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        norm = build_norm_layer(norm_cfg, channels)[1]
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended features of ``x`` (B, C, H, W), H and W at least 2; the shape stays."""
        query = self.theta(x).flatten(2).transpose(1, 2)
        key = self.phi(x).flatten(2)
        value = self.g(x).flatten(2).transpose(1, 2)
        attended = torch.matmul(torch.softmax(torch.matmul(query, key), dim=-1), value)
        return x + self.W(attended.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:]))
