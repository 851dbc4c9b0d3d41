"""Who computes a network's depthwise convolutions: PyTorch and cuDNN, or our Triton kernel."""

from __future__ import annotations

import importlib.util

from torch import nn

from ...errors import ConfigError

KERNELS = ("cudnn", "triton")


def _fits(module: nn.Module) -> bool:
    """Return whether the Triton kernel can do the work of ``module``."""
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels
        and module.stride == (1, 1)
        and module.padding_mode == "zeros"
        and module.dilation[0] == module.dilation[1]
        and all(size % 2 for size in module.kernel_size)
        and module.padding == tuple(module.dilation[0] * (size // 2) for size in module.kernel_size)
    )


def use_depthwise_kernel(network: nn.Module, kernel: str) -> None:
    """Let all depthwise convolutions of ``network`` that keep the size run on ``kernel``.

    Parameters, hooks and the keys of the state dict stay. Without Triton, and with ``cudnn``, nothing changes.

    Args:
        network: any network.
        kernel: ``cudnn`` or ``triton``.

    Raises:
        ConfigError: another name.
    """
    if kernel not in KERNELS:
        raise ConfigError(f"depthwise_kernel='{kernel}' is unknown; take one of {', '.join(KERNELS)}")
    if kernel == "cudnn" or importlib.util.find_spec("triton") is None:
        return
    from .depthwise_triton import TritonDepthwiseConv

    for module in network.modules():
        if _fits(module):
            module.__class__ = TritonDepthwiseConv
