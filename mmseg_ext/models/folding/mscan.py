"""The encoder's block without norms and layer scales, its gating unit without concatenation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.mscan import Block
from ..layers.hdmsca import HDMSCA
from .affine import is_affine, norm_before, scale_and_shift, scaled, split_inputs, split_outputs
from .rules import fold

_PART = 32  # hidden channels at a time; of 32, 64 and 128 the fastest on a CPU
_WIDE = 8  # hidden channels for one of the features


class FoldedBlock(nn.Module):
    """A `Block` whose norms and layer scales are in its 1x1 convolutions.

    With n = BN and s = layer scale, the attention's ``x + s * (n(x) + y)`` is affine in x: one factor per channel
    stays, everything constant goes to the bias of the convolution that ends y.

    On a CPU, where the MLP widens the features much, as it does in the first stages, it works through its hidden
    channels part by part, so that they stay in the processor's cache.

    Args:
        block: block with batch norms; its parts are used, not copied.
    """

    identity: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, mlp = block.attn, block.mlp
        scale, shift = scale_and_shift(block.norm1)
        kept = float(attention.residual) * block.layer_scale_1.detach()
        self.register_buffer("identity", (1 + kept * scale)[:, None, None])
        self.proj_1 = norm_before(block.norm1, attention.proj_1)
        self.gating_unit = attention.spatial_gating_unit
        self.proj_2 = scaled(attention.proj_2, block.layer_scale_1, kept * shift)
        wide, narrow = norm_before(block.norm2, mlp.fc1), scaled(mlp.fc2, block.layer_scale_2)
        hidden = wide.out_channels
        large = hidden >= _WIDE * wide.in_channels and hidden % _PART == 0 and wide.weight.device.type == "cpu"
        parts = hidden // _PART if large else 1
        self.fc1 = split_outputs(wide, parts)
        self.dwconv = split_outputs(mlp.dwconv.dwconv, parts)
        self.fc2 = split_inputs(narrow, [hidden // parts] * parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features; the shape stays."""
        y = self.proj_2(self.gating_unit(F.gelu(self.proj_1(x))))
        x = torch.addcmul(y, x, self.identity)
        # x comes last: in bf16 every addition rounds to the size of its sum
        parts = (fc2(F.gelu(dwconv(fc1(x)))) for fc1, dwconv, fc2 in zip(self.fc1, self.dwconv, self.fc2, strict=True))
        return x + sum(parts, start=next(parts))


class FoldedHDMSCA(nn.Module):
    """An `HDMSCA` that mixes each scale as it comes and sums the results: the concatenation is never built.

    Args:
        unit: gating unit with several scales; its convolutions are used, not copied.
    """

    def __init__(self, unit: HDMSCA) -> None:
        super().__init__()
        scales = [getattr(unit, f"conv1_{i}") for i in range(1, unit.num_scales + 1)]
        self.scales = nn.ModuleList(scales)
        self.mixes = split_inputs(unit.conv2, [conv.out_channels for conv in scales])
        self.gate = unit.gate

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape (B, C, H, W) with its dilated context; the shape stays."""
        scale = self.scales[0](x)
        context = self.mixes[0](scale)
        for conv, mix in zip(self.scales[1:], self.mixes[1:], strict=True):
            scale = conv(scale)
            context = context + mix(scale)
        return context * x if self.gate else context


@fold.register
def _(module: Block) -> nn.Module:
    return FoldedBlock(module) if is_affine(module.norm1) and is_affine(module.norm2) else module


@fold.register
def _(module: HDMSCA) -> nn.Module:
    return FoldedHDMSCA(module) if isinstance(module.conv2, nn.Conv2d) else module
