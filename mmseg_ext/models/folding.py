"""Segmentors for inference: as a function of images, and folded to the same scores with fewer operations.

`folded` is the entry; `fold` says for each kind of module what takes its place. A network with new parts registers its
own rules for them.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import SegformerHead
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock

from .light_ham_head import Hamburger, LightHamHead, factorise
from .linknet import LinkNet34, LinkNetDecoder
from .mscan import HDMSCA, Block
from .timm_encoder import TimmEncoder

_CONVS = (nn.Conv2d, nn.ConvTranspose2d)
_MAX_PADDING = 6  # oneDNN's vectorised kernel for dilated depthwise convolutions takes no wider padding
_PART = 32  # hidden channels of an MLP at a time; of 32, 64 and 128 the fastest on a CPU
_WIDE = 8  # hidden channels per channel from which an MLP is wide


def network_stride(network: Any) -> int:
    """Return the pixels that the coarsest features stand for; sides of images are best multiples of it."""
    return getattr(network.backbone, "stride", 32)


class Scores(nn.Module):
    """A segmentor, MMSegmentation's ``EncoderDecoder``, as a function of images for whatever runs networks."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of a normalised image (N, C, H, W)."""
        return self.network.encode_decode(image, [{}])  # no network reads the metadata


def folded(network: nn.Module, target: str = "cpu") -> nn.Module:
    """Return an inference-only copy of a segmentor that gives the same scores faster.

    Batch norms and layer scales go into the convolutions beside them, and levels are convolved before they are resized.
    For a CPU, convolutions also take forms that only processors are faster with. The copy is in evaluation mode, has no
    gradients, and its state dict is no longer that of the network.

    Args:
        network: MMSegmentation's ``EncoderDecoder``; it stays as it is.
        target: type of the device that the copy will run on, wherever it is now: ``cpu`` or ``cuda``.
    """
    fast = _rebuilt(copy.deepcopy(network).eval().requires_grad_(False))
    if target == "cpu":
        for module in list(fast.modules()):
            _fit_to_cpu(module)
    return fast


def _rebuilt(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _rebuilt(child))
    return fold(module)


@functools.singledispatch
def fold(module: nn.Module) -> nn.Module:
    """Return what takes the place of ``module``, whose parts are folded already; itself where nothing folds."""
    return module


# A batch norm is at inference an affine per channel, which a convolution in front of it or behind it takes over.


def _is_affine(norm: nn.Module) -> bool:
    """Tell whether ``norm`` is a batch norm with running statistics: at inference an affine per channel."""
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return a batch norm as ``x * scale + shift``, both (C,)."""
    ones = torch.ones_like(norm.running_mean)[:, None, None, None]
    weight, bias = fuse_conv_bn_weights(
        ones, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach().flatten(), bias.detach()


def _norm_after(conv: Any, norm: Any) -> nn.Module:
    """Return ``conv`` followed by the batch norm ``norm`` as one convolution."""
    return fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d)).requires_grad_(False)


def _norm_before(norm: nn.Module, conv: Any) -> nn.Conv2d:
    """Return the batch norm ``norm`` followed by the 1x1 convolution ``conv`` (no padding, no groups) as one."""
    scale, shift = _scale_and_shift(norm)
    weight = conv.weight.flatten(1)
    return _with_weights(conv, weight * scale, conv.bias + weight @ shift)


def _scaled(conv: Any, scale: Tensor, shift: Tensor | float = 0.0) -> nn.Conv2d:
    """Return the 1x1 convolution ``conv`` followed by ``x * scale + shift`` (C,) as one."""
    return _with_weights(conv, conv.weight.flatten(1) * scale[:, None], conv.bias * scale + shift)


def _split_inputs(conv: Any, channels: Sequence[int]) -> nn.ModuleList:
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


def _split_outputs(conv: Any, parts: int) -> nn.ModuleList:
    """Return ``parts`` equal convolutions whose results, concatenated, are that of ``conv``, pointwise or depthwise."""
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


def _fold_pairs(module: nn.Module, *pairs: tuple[str, str]) -> nn.Module:
    for conv, norm in pairs:
        if _is_affine(getattr(module, norm)):
            setattr(module, conv, _norm_after(getattr(module, conv), getattr(module, norm)))
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
def _(module: BasicBlock) -> nn.Module:
    return _fold_pairs(module, ("conv1", "bn1"), ("conv2", "bn2"))


@fold.register
def _(module: LinkNetDecoder) -> nn.Module:
    return _fold_pairs(module, ("conv1", "norm1"), ("deconv2", "norm2"), ("conv3", "norm3"))


@fold.register
def _(module: LinkNet34) -> nn.Module:
    return _fold_pairs(module, ("firstconv", "firstbn"))


# timm's blocks of EfficientNets, whose norms have an activation of their own; by name, since timm is optional
_TIMM_PAIRS = {
    "EfficientNetFeatures": (("conv_stem", "bn1"),),
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


@fold.register
def _(module: TimmEncoder) -> nn.Module:
    for block in module.network.modules():
        for conv, name in _TIMM_PAIRS.get(type(block).__name__, ()):
            norm = getattr(block, name)
            if _is_affine(norm):
                setattr(block, conv, _norm_after(getattr(block, conv), norm))
                setattr(block, name, norm.act)
    return module


# What only CPUs are faster with; on a GPU it would be twice as many kernels.


class PaddedFirstConv(nn.Conv2d):
    """A convolution that pads its input itself.

    oneDNN has no fast dilated depthwise convolution with a wide padding and computes it as one dense convolution per
    channel, which takes four times as long; without padding it has one.
    """

    padding: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features; the values are those of ``nn.Conv2d``."""
        height, width = self.padding
        x = F.pad(x, (width, width, height, height))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _fit_to_cpu(module: nn.Module) -> None:
    """Give a folded ``module`` the form that CPUs are fast at."""
    if isinstance(module, FoldedBlock):
        module.split_mlp()
    if type(module) is not nn.Conv2d or module.groups == 1 or isinstance(module.padding, str):
        return
    if module.padding_mode == "zeros" and max(module.dilation) > 1 and max(module.padding) > _MAX_PADDING:
        module.__class__ = PaddedFirstConv


class LevelFusion(nn.Module):
    """A 1x1 convolution of levels that are resized to the first and concatenated.

    Resizing and 1x1 convolution commute, so every level is convolved where it is, then resized and summed.

    Args:
        conv: the convolution of the concatenated levels.
        channels: channels of each level.
    """

    def __init__(self, conv: nn.Conv2d, channels: Sequence[int], mode: str, align_corners: bool) -> None:
        super().__init__()
        self.mode, self.align_corners = mode, align_corners
        self.convs = _split_inputs(conv, channels)

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


class FoldedHamburger(Hamburger):
    """A `Hamburger` in evaluation mode with a row per position, as channels-last memory has it."""

    def forward(self, x: Tensor, bases: Tensor | None = None) -> Tensor:
        """Return the reconstruction added to ``x``, as `Hamburger` does."""
        batch, channels, height, width = x.shape
        inner = F.relu(self.ham_in(x))
        rows = inner.permute(0, 2, 3, 1).reshape(batch, height * width, self.groups, channels // self.groups)
        rows = rows.transpose(1, 2).flatten(0, 1)
        bases = self.start_bases(rows.shape[0], x.device) if bases is None else bases
        with torch.autocast(x.device.type, enabled=False):
            bases = bases.float().expand(rows.shape[0], -1, -1)
            bases, coefficients = factorise(rows.float(), bases, self.eval_steps)
            rebuilt = (coefficients @ bases.transpose(1, 2)).to(inner.dtype)
        rebuilt = rebuilt.unflatten(0, (batch, self.groups)).transpose(1, 2).reshape(batch, height, width, channels)
        return F.relu(x + self.ham_out(rebuilt.permute(0, 3, 1, 2)))


@fold.register
def _(module: Hamburger) -> nn.Module:
    module.__class__ = FoldedHamburger
    return module


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


class FoldedBlock(nn.Module):
    """A `Block` whose norms and layer scales are in its 1x1 convolutions.

    With n = BN and s = layer scale, the attention's ``x + s * (n(x) + y)`` is affine in x: one factor per channel
    stays, everything constant goes to the bias of the convolution that ends y.

    Args:
        block: block with batch norms; its parts are used, not copied.
    """

    identity: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, mlp = block.attn, block.mlp
        scale, shift = _scale_and_shift(block.norm1)
        kept = float(attention.residual) * block.layer_scale_1.detach()
        self.register_buffer("identity", (1 + kept * scale)[:, None, None])
        self.proj_1 = _norm_before(block.norm1, attention.proj_1)
        self.gating_unit = attention.spatial_gating_unit
        self.proj_2 = _scaled(attention.proj_2, block.layer_scale_1, kept * shift)
        # lists, for `split_mlp`
        self.fc1 = nn.ModuleList([_norm_before(block.norm2, mlp.fc1)])
        dwconv: Any = mlp.dwconv.dwconv
        self.dwconv = nn.ModuleList([dwconv])
        self.fc2 = nn.ModuleList([_scaled(mlp.fc2, block.layer_scale_2)])

    def split_mlp(self) -> None:
        """Let the MLP work through its hidden channels part by part, so that they stay in a processor's cache.

        Only where it widens the features much, as it does in the first stages.
        """
        wide: Any = self.fc1[0]
        if wide.out_channels < _WIDE * wide.in_channels or wide.out_channels % _PART:
            return
        parts = wide.out_channels // _PART
        self.fc1, self.dwconv = _split_outputs(wide, parts), _split_outputs(self.dwconv[0], parts)
        self.fc2 = _split_inputs(self.fc2[0], [_PART] * parts)

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
        self.mixes = _split_inputs(unit.conv2, [conv.out_channels for conv in scales])
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
    return FoldedBlock(module) if _is_affine(module.norm1) and _is_affine(module.norm2) else module


@fold.register
def _(module: HDMSCA) -> nn.Module:
    return FoldedHDMSCA(module) if isinstance(module.conv2, nn.Conv2d) else module
