"""Networks in a form that can be traced and exported for any batch and any size.

An exported network takes ``image`` (N, C, H, W), float32 and normalised, and returns ``scores`` (N, K, H, W), float32
logits; N, H and W are free, H and W multiples of the network's stride.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models.backbones.mit import EfficientMultiheadAttention
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..models.folding import Scores, folded, network_stride
from .facts import image_bands


class ExportableAttention(nn.Module):
    """SegFormer's attention without PyTorch's ``MultiheadAttention``, whose trace is bound to one batch size.

    The parts of the ``plain`` one are used, not copied.
    """

    def __init__(self, plain: EfficientMultiheadAttention) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor, hw_shape: Sequence[int], identity: Tensor) -> Tensor:
        """Return ``identity`` plus the attended ``x``, both (N, H * W, C)."""
        plain, attention = self.plain, self.plain.attn
        reduced = x
        if plain.sr_ratio > 1:
            image = x.transpose(1, 2).unflatten(2, tuple(hw_shape))
            reduced = plain.norm(plain.sr(image).flatten(2).transpose(1, 2))
        channels = [x.shape[2], 2 * x.shape[2]]
        query_weight, other_weight = attention.in_proj_weight.split(channels)
        query_bias, other_bias = attention.in_proj_bias.split(channels)
        key, value = F.linear(reduced, other_weight, other_bias).chunk(2, dim=2)
        query = F.linear(x, query_weight, query_bias)
        split = [y.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for y in (query, key, value)]
        attended = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return identity + attention.out_proj(attended)


class SameConv(nn.Conv2d):
    """timm's convolution with TensorFlow's padding, for sides that are multiples of its stride.

    timm computes the padding from each size, which no exporter can keep free; here it is always the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features (N, C, H / stride, W / stride)."""
        (height, width), (down, across) = self.kernel_size, self.stride
        missing = width - across, height - down
        x = F.pad(x, [side for total in missing for side in (total // 2, total - total // 2)])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class HalfScores(nn.Module):
    """A network in float16 between a float32 image and float32 scores."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.half_scores = scores.half()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of a normalised image (N, C, H, W)."""
        return self.half_scores(image.half()).float()


def exportable(network: nn.Module, precision: str = "fp32", target: str = "cpu") -> nn.Module:
    """Return a module from images (N, C, H, W) to logits (N, K, H, W), float32 both, in evaluation mode on the CPU.

    The ``network`` is not changed. ``fp16`` computes in float16, except for the NMF. The module is folded for the
    device type ``target``, ``cpu`` or ``cuda``; it runs on both.
    """
    copied = folded(revert_sync_batchnorm(copy.deepcopy(network)).cpu(), target)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, EfficientMultiheadAttention):
                setattr(module, name, ExportableAttention(child))
            elif type(child).__name__ == "Conv2dSame" and child.dilation == (1, 1):
                child.__class__ = SameConv
    scores = Scores(copied).eval()
    return HalfScores(scores) if precision == "fp16" else scores


def example_image(network: nn.Module) -> Tensor:
    """Return an image batch (2, C, H, W) to trace with, whose sides differ."""
    stride = network_stride(network)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, image_bands(network), 3 * stride, 2 * stride, generator=generator)


@torch.no_grad()
def exported_program(network: nn.Module, precision: str = "fp32", target: str = "cpu") -> ExportedProgram:
    """Return the graph of `exportable` for any batch and for sides that are multiples of the stride, two at least."""
    # a free dimension whose rules PyTorch finds itself takes a third of the time of one that is stride * n
    free = Dim.DYNAMIC
    module = exportable(network, precision, target)
    return torch.export.export(module, (example_image(network),), dynamic_shapes=({0: free, 2: free, 3: free},))
