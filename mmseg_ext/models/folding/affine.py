"""Convolutions that take over the per-channel affine in front of them or behind them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights


def is_affine(norm: nn.Module) -> bool:
    """Tell whether ``norm`` is a batch norm with running statistics: at inference an affine per channel."""
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return a batch norm as ``x * scale + shift``, both (C,)."""
    ones = torch.ones_like(norm.running_mean)[:, None, None, None]
    weight, bias = fuse_conv_bn_weights(
        ones, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach().flatten(), bias.detach()


def norm_after(conv: Any, norm: Any) -> nn.Module:
    """Return ``conv`` followed by the batch norm ``norm`` as one convolution."""
    return fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d)).requires_grad_(False)


def norm_before(norm: nn.Module, conv: Any) -> nn.Conv2d:
    """Return the batch norm ``norm`` followed by the 1x1 convolution ``conv`` (no padding, no groups) as one."""
    scale, shift = scale_and_shift(norm)
    weight = conv.weight.flatten(1)
    return _with_weights(conv, weight * scale, conv.bias + weight @ shift)


def scaled(conv: Any, scale: Tensor, shift: Tensor | float = 0.0) -> nn.Conv2d:
    """Return the 1x1 convolution ``conv`` followed by ``x * scale + shift`` (C,) as one."""
    return _with_weights(conv, conv.weight.flatten(1) * scale[:, None], conv.bias * scale + shift)


def split_inputs(conv: Any, channels: Sequence[int]) -> nn.ModuleList:
    """Return a 1x1 convolution of concatenated tensors as one for each, whose results sum to its own.

    Args:
        conv: convolution without groups; its bias goes to the first part.
        channels: channels of each tensor.
    """
    parts = nn.ModuleList()
    for weight in conv.weight.split(list(channels), dim=1):
        part = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
        part.weight = nn.Parameter(weight.clone(), requires_grad=False)
        parts.append(part)
    parts[0].bias = conv.bias
    return parts


def split_outputs(conv: Any, parts: int) -> nn.ModuleList:
    """Return convolutions whose results, put behind one another, are that of ``conv``; depthwise ones take their part.

    Args:
        conv: pointwise or depthwise.
        parts: how many, all of one size.
    """
    if parts == 1:
        return nn.ModuleList([conv])
    size = conv.out_channels // parts
    found = nn.ModuleList()
    for start in range(0, conv.out_channels, size):
        bias = torch.zeros(size) if conv.bias is None else conv.bias[start : start + size]
        part = nn.Conv2d(
            conv.in_channels if conv.groups == 1 else size, size, conv.kernel_size, conv.stride, conv.padding,
            conv.dilation, 1 if conv.groups == 1 else size,
        )  # fmt: skip
        found.append(_with_weights(part, conv.weight[start : start + size], bias))
    return found.requires_grad_(False)


def _with_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = copy.deepcopy(conv)
    conv.weight = nn.Parameter(weight.view_as(conv.weight), requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv
