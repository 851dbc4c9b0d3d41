"""MSCAN, the encoder of SegNeXt and D-SegNeXt, and the gating units that tell the two apart.

Papers: SegNeXt (Guo et al., NeurIPS 2022, arXiv 2209.08575); D-SegNeXt (IEEE GRSL 2024, doi
10.1109/LGRS.2024.3397949). Written from the papers and from facts about the published checkpoints.

Shapes: an image (B, in_channels, H, W) gives four features (B, C_i, H / 2**(i+2), W / 2**(i+2)), rounded up.

A new gating unit is a class here under ``@ATTENTION.register_module()``, with ``channels`` as its first argument, that
keeps the shape. A config file names it: ``model = dict(backbone=dict(gating_unit=dict(_delete_=True, type=...)))``.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmcv.cnn import build_norm_layer, normal_init, trunc_normal_init
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.registry import ATTENTION
from mmcv.runner import ModuleList
from mmcv.utils import build_from_cfg
from mmseg.models.builder import BACKBONES
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .freezing import FreezableEncoder

IMAGENET_CLASSES = 1000


def depthwise_conv(channels: int, kernel_size: tuple[int, int], dilation: int = 1) -> nn.Conv2d:
    """Return a depthwise convolution with bias that keeps the spatial size (odd kernels)."""
    padding = (dilation * (kernel_size[0] - 1) // 2, dilation * (kernel_size[1] - 1) // 2)
    return nn.Conv2d(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)


@ATTENTION.register_module()
class MSCA(nn.Module):
    """SegNeXt's gating unit (Eq. 1): a 5x5 depthwise conv, three pairs of strip convs, a 1x1 conv, a gate.

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


@ATTENTION.register_module()
class HDMSCA(nn.Module):
    """D-SegNeXt's gating unit: hybrid dilated multi-scale convolutional attention.

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


def _named(**parts: nn.Module) -> nn.Sequential:
    """Return ``parts`` in series under the names that published checkpoints have for them."""
    return nn.Sequential(OrderedDict(parts))


def _halve(in_channels: int, channels: int, norm_cfg: dict) -> tuple[nn.Conv2d, nn.Module]:
    """Return the 3x3 stride-2 convolution and the norm that halve the resolution."""
    return nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), build_norm_layer(norm_cfg, channels)[1]


def stem(in_channels: int, channels: int, norm_cfg: dict) -> nn.Sequential:
    """Return what stands before the first stage: (B, in_channels, H, W) to (B, channels, H/4, W/4)."""
    first = _halve(in_channels, channels // 2, norm_cfg)
    return _named(proj=nn.Sequential(*first, nn.GELU(), *_halve(channels // 2, channels, norm_cfg)))


def downsample(in_channels: int, channels: int, norm_cfg: dict) -> nn.Sequential:
    """Return what stands between two stages: (B, in_channels, H, W) to (B, channels, H/2, W/2)."""
    conv, norm = _halve(in_channels, channels, norm_cfg)
    return _named(proj=conv, norm=norm)


class Mlp(nn.Module):
    """1x1 conv, 3x3 depthwise conv, GELU, 1x1 conv, with dropout after the last two."""

    def __init__(self, channels: int, hidden_channels: int, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.dwconv = _named(dwconv=depthwise_conv(hidden_channels, (3, 3)))
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed features; the shape stays."""
        x = self.drop(self.act(self.dwconv(self.fc1(x))))
        return self.drop(self.fc2(x))


class Attention(nn.Module):
    """1x1 conv, GELU, gating unit, 1x1 conv; the input is added back unless ``residual`` is False."""

    def __init__(self, channels: int, gating_unit: dict, residual: bool) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = build_from_cfg(gating_unit, ATTENTION, dict(channels=channels))
        self.proj_2 = nn.Conv2d(channels, channels, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended features; the shape stays."""
        y = self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))
        return x + y if self.residual else y


class Block(nn.Module):
    """Pre-norm attention and pre-norm MLP, each scaled per channel, dropped at random, and added back."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: float,
        drop_path_rate: float,
        gating_unit: dict,
        attention_residual: bool,
        drop_rate: float,
        layer_scale: float,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.attn = Attention(channels, gating_unit, attention_residual)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.mlp = Mlp(channels, int(channels * mlp_ratio), drop_rate)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.layer_scale_1 = nn.Parameter(layer_scale * torch.ones(channels))
        self.layer_scale_2 = nn.Parameter(layer_scale * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features; the shape stays."""
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the batch norms of ``module`` from counting the same batch twice."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked = norm.num_batches_tracked.clone()  # SyncBN does not run without one
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


@torch.compiler.disable  # Dynamo cannot trace the context
def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Return ``module(x)`` and keep only ``x`` for the backward pass, with the same gradients and statistics.

    Within a compiled network it runs as it is, uncompiled.
    """
    return checkpoint(
        module, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _frozen_statistics(module))
    )


@BACKBONES.register_module()
class MSCAN(FreezableEncoder):
    """Multi-scale convolutional attention network with a pluggable gating unit.

    ``gating_unit=dict(type='MSCA')`` is SegNeXt's encoder, ``dict(type='HDMSCA')`` D-SegNeXt's.
    Published checkpoints load strictly: an ImageNet classifier ``head.*`` that they carry is passed over,
    and OpenMMLab's key ``mlp.dwconv.*`` is read as ``mlp.dwconv.dwconv.*``.

    Args:
        in_channels: bands of the image.
        embed_dims: width of each stage.
        depths: blocks of each stage.
        mlp_ratios: width of the MLP's hidden layer over the stage's width.
        gating_unit: config of the gating unit, built from mmcv's ``ATTENTION`` registry.
        attention_residual: add the attention's input back (False is the paper's "w/o residual").
        drop_rate: dropout in the MLPs.
        drop_path_rate: drop-path rate of the last block, rising linearly from 0.
        layer_scale: initial layer scale.
        norm_cfg: norm layer inside the stages (a LayerNorm closes each stage).
        recompute_stages: stages, from 1, whose blocks keep no activations and compute them anew in the backward pass;
            the first hold the most.
        frozen_stages: the first so many stages are not trained.
        init_cfg: weights to start from, see `mmseg_ext.engine.weights.load_pretrained`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dims: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (3, 3, 5, 2),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        gating_unit: dict | None = None,
        attention_residual: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        layer_scale: float = 1e-2,
        norm_cfg: dict | None = None,
        recompute_stages: Sequence[int] = (),
        frozen_stages: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.recompute_stages = tuple(recompute_stages)
        self.embed_dims = tuple(embed_dims)
        self.num_stages = len(self.embed_dims)
        norm_cfg = norm_cfg or dict(type="BN")
        settings = (gating_unit or dict(type="MSCA"), attention_residual, drop_rate, layer_scale, norm_cfg)
        rates = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        for i, (channels, depth, mlp_ratio) in enumerate(zip(self.embed_dims, depths, mlp_ratios, strict=True)):
            embed, width = (downsample, self.embed_dims[i - 1]) if i else (stem, in_channels)
            self.add_module(f"patch_embed{i + 1}", embed(width, channels, norm_cfg))
            blocks = [Block(channels, mlp_ratio, rate, *settings) for rate in itertools.islice(rates, depth)]
            self.add_module(f"block{i + 1}", ModuleList(blocks))
            self.add_module(f"norm{i + 1}", nn.LayerNorm(channels))
        parts = ("patch_embed", "block", "norm")
        self.freeze([[f"{part}{i + 1}" for part in parts] for i in range(self.num_stages)], frozen_stages)
        self.register_load_state_dict_pre_hook(MSCAN._adapt_on_load)

    @property
    def imagenet_head_params(self) -> int:
        """Parameters of the 1000-class classifier that published checkpoints carry and we never build."""
        return (self.embed_dims[-1] + 1) * IMAGENET_CLASSES

    @staticmethod
    def adapt_published_keys(state_dict: dict, prefix: str = "") -> None:
        """Bring published keys under ``prefix`` into this implementation's form, in place."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            if name.startswith("head."):
                del state_dict[key]
            elif ".mlp.dwconv." in name and ".mlp.dwconv.dwconv." not in name:
                state_dict[prefix + name.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")] = state_dict.pop(key)

    @staticmethod
    def _adapt_on_load(module: MSCAN, state_dict: dict, prefix: str, *_: object) -> None:
        module.adapt_published_keys(state_dict, prefix)

    def init_weights(self) -> None:
        """Draw the published initial weights; ``init_cfg`` files are loaded by the engine afterwards."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                normal_init(module, std=math.sqrt(2.0 / fan_out))
            elif isinstance(module, nn.Linear):
                trunc_normal_init(module, std=0.02)
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of all stages for an image batch (B, in_channels, H, W)."""
        features = []
        for i in range(1, self.num_stages + 1):
            x = getattr(self, f"patch_embed{i}")(x)
            for block in getattr(self, f"block{i}"):
                x = recomputed(block, x) if i in self.recompute_stages and self.training else block(x)
            x = getattr(self, f"norm{i}")(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            features.append(x)
        return tuple(features)
