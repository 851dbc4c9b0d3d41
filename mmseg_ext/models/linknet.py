"""The LinkNet family of the paper's table: LinkNet-34, D-LinkNet-34 and NL-LinkNet-34.

Papers: LinkNet (Chaurasia and Culurciello, arXiv 1707.03718); D-LinkNet (Zhou et al., CVPR Workshops 2018);
NL-LinkNet (Wang et al., arXiv 1908.08223). Structure and keys are those of the published road checkpoints.

Shapes: an image (B, in_channels, H, W) gives one feature (B, 32, H, W); LinkNet-34 itself gives H-1 and W-1 where
H and W are multiples of 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer, normal_init
from mmseg.models.builder import BACKBONES
from torch import Tensor, nn
from torchvision.models.resnet import resnet34

from .freezing import FreezableEncoder

# torchvision's names of the encoder's parts, and ours
_TORCHVISION_NAMES = {"conv1.": "firstconv.", "bn1.": "firstbn."} | {f"layer{i}.": f"encoder{i}." for i in range(1, 5)}


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Return ``x`` (B, C, H, W) with zeros added below and at the right until H and W are multiples of ``divisor``."""
    height, width = x.shape[2:]
    below, right = -height % divisor, -width % divisor
    return F.pad(x, (0, right, 0, below)) if below or right else x


def initialise_convs(module: nn.Module) -> None:
    """Draw the weights of all convolutions in ``module`` from N(0, sqrt(2 / fan)) and set their biases to 0.

    ``fan`` is the fan-out of a convolution, as ResNet has it (He et al., arXiv 1502.01852), and for a transposed
    convolution the number of products that one output value sums.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan = math.prod(layer.kernel_size) * layer.out_channels
        elif isinstance(layer, nn.ConvTranspose2d):
            fan = math.prod(layer.kernel_size) * layer.in_channels // math.prod(layer.stride)
        else:
            continue
        normal_init(layer, std=math.sqrt(2.0 / fan))


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


class DilatedCenter(nn.Module):
    """D-LinkNet's and DUNet's centre: 3x3 convolutions in series with ReLU, one per dilation, all results summed.

    Args:
        in_channels: channels of the input.
        channels: channels of every result.
        add_input: add the input to the sum (needs ``in_channels == channels``).
    """

    def __init__(self, in_channels: int, channels: int, dilations: Sequence[int], add_input: bool) -> None:
        super().__init__()
        self.num_convs = len(dilations)
        self.add_input = add_input
        for i, dilation in enumerate(dilations, start=1):
            conv = nn.Conv2d(in_channels if i == 1 else channels, channels, 3, padding=dilation, dilation=dilation)
            self.add_module(f"dilate{i}", conv)

    def forward(self, x: Tensor) -> Tensor:
        """Return the summed context of ``x`` (B, in_channels, H, W) as (B, channels, H, W)."""
        results = [x]
        for i in range(1, self.num_convs + 1):
            results.append(F.relu(getattr(self, f"dilate{i}")(results[-1])))
        first, *others = results if self.add_input else results[1:]
        return sum(others, start=first)


class NonLocalBlock(nn.Module):
    """NL-LinkNet's context (arXiv 1711.07971, embedded Gaussian): a position attends to all of a map of half the size.

    The input is added back. The closing norm starts at zero, so that a new block changes nothing.

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
        """Return the attended features of ``x`` (B, C, H, W), H and W at least 2; the shape stays.

        The attention, which has no scale, is computed in float32 under any autocast: float16 has no such numbers.
        """
        query = self.theta(x).flatten(2).transpose(1, 2)
        key = self.phi(x).flatten(2)
        value = self.g(x).flatten(2).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            attention = F.softmax(query.float() @ key.float(), dim=-1)
        attended = attention.to(value.dtype) @ value
        return x + self.W(attended.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:]))


@BACKBONES.register_module()
class LinkNet34(FreezableEncoder):
    """ResNet-34 encoder, decoder blocks with additive skips, features at the resolution of the image.

    Images of any size are padded to a multiple of 32 and the features cropped back.

    Args:
        in_channels: bands of the image.
        norm_cfg: norm layers of encoder and decoder.
        init_cfg: weights to start from; ``torchvision://ResNet34_Weights.IMAGENET1K_V1`` fills the encoder.
        frozen_stages: the first so many stages of the encoder are not trained.
    """

    imagenet_weights = "ResNet34_Weights"
    encoder_prefixes = ("firstconv.", "firstbn.", "encoder")
    final_kernel, final_padding = 3, 0
    nonlocal3: nn.Module
    nonlocal4: nn.Module
    dblock: nn.Module

    def __init__(
        self,
        in_channels: int = 3,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__(init_cfg)
        norm_cfg = norm_cfg or dict(type="BN")
        resnet = resnet34(weights=None, norm_layer=lambda channels: build_norm_layer(norm_cfg, channels)[1])
        self.firstconv = resnet.conv1
        if in_channels != 3:
            self.firstconv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.firstbn = resnet.bn1
        self.encoder1, self.encoder2 = resnet.layer1, resnet.layer2
        self.encoder3, self.encoder4 = resnet.layer3, resnet.layer4
        self.add_context(norm_cfg)
        self.decoder4 = LinkNetDecoder(512, 256, norm_cfg)
        self.decoder3 = LinkNetDecoder(256, 128, norm_cfg)
        self.decoder2 = LinkNetDecoder(128, 64, norm_cfg)
        self.decoder1 = LinkNetDecoder(64, 64, norm_cfg)
        self.finaldeconv1 = nn.ConvTranspose2d(64, 32, self.final_kernel, stride=2, padding=self.final_padding)
        self.finalconv2 = nn.Conv2d(32, 32, 3, padding=self.final_padding)
        stages = [["firstconv", "firstbn", "encoder1"], ["encoder2"], ["encoder3"], ["encoder4"]]
        self.freeze(stages, frozen_stages)

    def add_context(self, norm_cfg: dict) -> None:
        """Build the layers by which the family differs, in front of stages 3 and 4 and behind 4; LinkNet has none."""
        self.nonlocal3, self.nonlocal4, self.dblock = nn.Identity(), nn.Identity(), nn.Identity()

    @staticmethod
    def adapt_published_keys(state_dict: dict, prefix: str = "") -> None:
        """Bring torchvision's keys under ``prefix`` into this network's form, in place; its classifier goes."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            for theirs, ours in _TORCHVISION_NAMES.items():
                if name.startswith(theirs):
                    state_dict[prefix + ours + name[len(theirs) :]] = state_dict.pop(key)
            if name.startswith("fc."):
                del state_dict[key]

    def init_weights(self) -> None:
        """Draw first weights; ``init_cfg`` files are loaded by the engine afterwards."""
        initialise_convs(self)
        self._is_init = True

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features of the four stages, the last one with its context; skips take what no block attended."""
        x = F.max_pool2d(F.relu(self.firstbn(self.firstconv(x))), 3, stride=2, padding=1)
        e1 = self.encoder1(x)
        e2 = self.encoder2(e1)
        e3 = self.encoder3(self.nonlocal3(e2))
        return e1, e2, e3, self.dblock(self.encoder4(self.nonlocal4(e3)))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the last feature map of an image batch (B, in_channels, H, W)."""
        height, width = x.shape[2:]
        e1, e2, e3, e4 = self.encode(pad_to_multiple(x, 32))
        d4 = self.decoder4(e4) + e3
        d3 = self.decoder3(d4) + e2
        d2 = self.decoder2(d3) + e1
        x = F.relu(self.finaldeconv1(self.decoder1(d2)))
        x = F.relu(self.finalconv2(x))
        return (x[:, :, :height, :width],)


@BACKBONES.register_module()
class DLinkNet34(LinkNet34):
    """LinkNet-34 with dilated convolutions (1, 2, 4, 8) between encoder and decoder."""

    final_kernel, final_padding = 4, 1

    def add_context(self, norm_cfg: dict) -> None:
        """Build the dilated centre."""
        super().add_context(norm_cfg)
        self.dblock = DilatedCenter(512, 512, (1, 2, 4, 8), add_input=True)


@BACKBONES.register_module()
class NLLinkNet34(LinkNet34):
    """LinkNet-34 with non-local blocks in front of the third and fourth encoder stage."""

    final_kernel, final_padding = 4, 1

    def add_context(self, norm_cfg: dict) -> None:
        """Build the two non-local blocks."""
        super().add_context(norm_cfg)
        self.nonlocal3 = NonLocalBlock(128, norm_cfg)
        self.nonlocal4 = NonLocalBlock(256, norm_cfg)
