"""Which module folds into what; every module of the package adds its own rules."""

from __future__ import annotations

import functools
import itertools

from mmcv.cnn import ConvModule
from torch import nn
from torchvision.models.resnet import BasicBlock

from ..backbones.linknet import LinkNet34
from ..backbones.mscan import Downsample
from ..layers.linknet_decoder import LinkNetDecoder
from .affine import is_affine, norm_after

_CONVS = (nn.Conv2d, nn.ConvTranspose2d)


@functools.singledispatch
def fold(module: nn.Module) -> nn.Module:
    """Return what stands for ``module``, whose parts are folded already; itself where there is nothing to fold."""
    return module


def _fold_pairs(module: nn.Module, *pairs: tuple[str, str]) -> nn.Module:
    for conv, norm in pairs:
        if is_affine(getattr(module, norm)):
            setattr(module, conv, norm_after(getattr(module, conv), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
    return module


@fold.register
def _(module: nn.Sequential) -> nn.Module:
    parts = itertools.pairwise(module.named_children())
    return _fold_pairs(module, *((conv, norm) for (conv, part), (norm, _) in parts if isinstance(part, _CONVS)))


@fold.register
def _(module: ConvModule) -> nn.Module:
    if module.with_norm and module.order[:2] == ("conv", "norm"):
        return _fold_pairs(module, ("conv", module.norm_name))
    return module


@fold.register
def _(module: Downsample) -> nn.Module:
    return _fold_pairs(module, ("proj", "norm"))


@fold.register
def _(module: BasicBlock) -> nn.Module:
    return _fold_pairs(module, ("conv1", "bn1"), ("conv2", "bn2"))


@fold.register
def _(module: LinkNetDecoder) -> nn.Module:
    return _fold_pairs(module, ("conv1", "norm1"), ("deconv2", "norm2"), ("conv3", "norm3"))


@fold.register
def _(module: LinkNet34) -> nn.Module:
    return _fold_pairs(module, ("firstconv", "firstbn"))
