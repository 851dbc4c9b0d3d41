"""Decode heads that convolve every level where it is small, and the Hamburger without transposed copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import SegformerHead
from torch import Tensor, nn

from ..decode_heads.light_ham_head import LightHamHead
from ..layers.hamburger import Hamburger
from ..layers.nmf import EPS
from .affine import split_inputs
from .rules import fold


class LevelFusion(nn.Module):
    """A 1x1 convolution of levels that are resized to the first and concatenated.

    Resizing and 1x1 convolution commute, so every level is convolved where it is, then resized and summed.

    Args:
        conv: the convolution of the concatenated levels.
        channels: channels of each level.
        mode: interpolation.
        align_corners: its convention.
    """

    def __init__(self, conv: nn.Conv2d, channels: Sequence[int], mode: str, align_corners: bool) -> None:
        super().__init__()
        self.mode, self.align_corners = mode, align_corners
        self.convs = split_inputs(conv, channels)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the fused features (B, C, H, W) at the size of the first of ``levels`` (B, C_i, H_i, W_i)."""
        total, *others = (conv(level) for conv, level in zip(self.convs, levels, strict=True))
        for other in others:
            total = total + F.interpolate(other, size=total.shape[2:], mode=self.mode, align_corners=self.align_corners)
        return total


class FoldedLightHamHead(LightHamHead):
    """A `LightHamHead` whose squeeze is a `LevelFusion`."""

    def forward(self, inputs: Sequence[Tensor], bases: Tensor | None = None) -> Tensor:
        """Return class scores at the resolution of the first selected stage."""
        x = self.hamburger(self.squeeze(self._transform_inputs(inputs)), bases)
        return self.cls_seg(self.align(x)).contiguous()  # resizing few channels is slow in channels_last


class FoldedSegformerHead(SegformerHead):
    """A SegFormer head whose fusion is a `LevelFusion`."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return class scores at the resolution of the first stage."""
        levels = [conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs), strict=True)]
        return self.cls_seg(self.fusion_conv(levels)).contiguous()


class FoldedHamburger(nn.Module):
    """A `Hamburger` in evaluation mode with a row per position, as channels-last memory has it.

    Args:
        hamburger: its parts are used, not copied.
    """

    def __init__(self, hamburger: Hamburger) -> None:
        super().__init__()
        self.plain = hamburger

    def forward(self, x: Tensor, bases: Tensor | None = None) -> Tensor:
        """Return the reconstruction added to ``x``, as `Hamburger` does."""
        plain = self.plain
        batch, channels, height, width = x.shape
        inner = F.relu(plain.ham_in(x))
        rows = inner.permute(0, 2, 3, 1).reshape(batch, height * width, plain.groups, channels // plain.groups)
        rows = rows.transpose(1, 2).flatten(0, 1)
        if bases is None:
            bases = plain._draw_bases(rows.shape[0], x.device) if plain.random_bases else plain.fixed_bases
        rebuilt = _reconstruct(rows, bases, plain.eval_steps).to(inner.dtype)
        rebuilt = rebuilt.unflatten(0, (batch, plain.groups)).transpose(1, 2).reshape(batch, height, width, channels)
        return F.relu(x + plain.ham_out(rebuilt.permute(0, 3, 1, 2)))


def _reconstruct(rows: Tensor, bases: Tensor, steps: int) -> Tensor:
    """Return the low-rank approximation of ``rows`` (N, P, D), as `nmf_reconstruct` computes it for (N, D, P)."""
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.float()
        bases = bases.float().expand(rows.shape[0], -1, -1)
        coefficients = torch.softmax(rows @ bases, dim=-1)
        for _ in range(steps):
            coefficients = _update(rows, coefficients, bases)
            bases = _update(rows.transpose(1, 2), bases, coefficients)
        return _update(rows, coefficients, bases) @ bases.transpose(1, 2)


def _update(matrix: Tensor, factor: Tensor, other: Tensor) -> Tensor:
    """Return ``factor`` of ``matrix`` = factor other' after one multiplicative update."""
    return factor * (matrix @ other) / (factor @ (other.transpose(1, 2) @ other) + EPS)


@fold.register
def _(module: Hamburger) -> nn.Module:
    return FoldedHamburger(module)


@fold.register
def _(module: LightHamHead) -> nn.Module:
    module.squeeze.conv = LevelFusion(module.squeeze.conv, module.in_channels, "bilinear", module.align_corners)
    module.__class__ = FoldedLightHamHead
    return module


@fold.register
def _(module: SegformerHead) -> nn.Module:
    channels = [module.channels] * len(module.in_channels)
    fusion = module.fusion_conv
    fusion.conv = LevelFusion(fusion.conv, channels, module.interpolate_mode, module.align_corners)
    module.__class__ = FoldedSegformerHead
    return module
