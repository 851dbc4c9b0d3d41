"""The UNet family of the paper's table: a UNet of seven levels, and DUNet.

Papers: U-Net (Ronneberger et al., arXiv 1505.04597). DUNet is D-LinkNet's dilated centre between VGG-13's first three
stages and a UNet decoder. Structure and keys are those of the published road checkpoints.

Shapes: an image (B, in_channels, H, W) gives one feature (B, C, H, W), C = 8 (UNet) or 64 (DUNet).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.runner import BaseModule
from mmseg.models.builder import BACKBONES
from torch import Tensor, nn

from .linknet import DilatedCenter, initialise_convs, pad_to_multiple


def _double_conv(in_channels: int, channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def _up_conv(in_channels: int, channels: int) -> nn.Sequential:
    """Return a 4x4 transposed convolution with ReLU that doubles the size."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, channels, 4, stride=2, padding=1, bias=False), nn.ReLU(inplace=True)
    )


class _UNetDecoder(BaseModule):
    """What both networks share: the way up through the skips, first weights, sizes."""

    widths: tuple[int, ...]

    def __init__(self, center_channels: int, init_cfg: dict | None) -> None:
        super().__init__(init_cfg)
        for level in range(len(self.widths), 0, -1):
            channels = self.widths[level - 1]
            below = self.widths[level] if level < len(self.widths) else center_channels
            self.add_module(f"trans{level}", _up_conv(below, channels))
            self.add_module(f"up{level}", _double_conv(2 * channels, channels))

    def init_weights(self) -> None:
        """Draw first weights; ``init_cfg`` files are loaded by the engine afterwards."""
        initialise_convs(self)
        self._is_init = True

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the skips, finest first, and the centre's features."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the last feature map of an image batch (B, in_channels, H, W)."""
        height, width = x.shape[2:]
        skips, x = self.encode(pad_to_multiple(x, 2 ** len(self.widths)))
        for level in range(len(self.widths), 0, -1):
            up = getattr(self, f"trans{level}")(x)
            x = getattr(self, f"up{level}")(torch.cat([up, skips[level - 1]], dim=1))
        return (x[:, :, :height, :width],)


@BACKBONES.register_module()
class SevenLevelUNet(_UNetDecoder):
    """UNet with seven levels and no batch norm. Images are padded to a multiple of 128, the features cropped back.

    Args:
        in_channels: bands of the image.
        init_cfg: weights to start from.
    """

    widths = (8, 16, 32, 64, 128, 256, 512)
    stride = 128

    def __init__(self, in_channels: int = 3, init_cfg: dict | None = None) -> None:
        super().__init__(1024, init_cfg)
        for level, channels in enumerate(self.widths, start=1):
            self.add_module(f"down{level}", _double_conv(in_channels if level == 1 else channels // 2, channels))
        self.center = _double_conv(self.widths[-1], 1024)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of the seven levels and of the centre."""
        skips = []
        for level in range(1, len(self.widths) + 1):
            skips.append(getattr(self, f"down{level}")(x))
            x = F.max_pool2d(skips[-1], 2)
        return skips, self.center(x)


@BACKBONES.register_module()
class DUNet(_UNetDecoder):
    """VGG-13's first three stages, dilated centre (1 to 32), UNet decoder. Images are padded to a multiple of 8.

    Args:
        in_channels: bands of the image.
        init_cfg: weights to start from; ``torchvision://VGG13_Weights.IMAGENET1K_V1`` fills the encoder.
    """

    widths = (64, 128, 256)
    imagenet_weights = "VGG13_Weights"
    encoder_prefixes = ("conv",)

    def __init__(self, in_channels: int = 3, init_cfg: dict | None = None) -> None:
        super().__init__(512, init_cfg)
        last = in_channels
        for i in range(1, 7):
            channels = self.widths[(i - 1) // 2]
            self.add_module(f"conv{i}", nn.Conv2d(last, channels, 3, padding=1))
            last = channels
        self.dilate_center = DilatedCenter(256, 512, (1, 2, 4, 8, 16, 32), add_input=False)

    @staticmethod
    def adapt_published_keys(state_dict: dict, prefix: str = "") -> None:
        """Bring torchvision's VGG-13 keys under ``prefix`` into this network's form, in place; deeper layers go."""
        ours = {f"features.{index}.": f"conv{i}." for i, index in enumerate((0, 2, 5, 7, 10, 12), start=1)}
        for key in [key for key in state_dict if key.startswith((f"{prefix}features.", f"{prefix}classifier."))]:
            value = state_dict.pop(key)
            stem, _, kind = key[len(prefix) :].rpartition(".")
            if f"{stem}." in ours:
                state_dict[f"{prefix}{ours[f'{stem}.']}{kind}"] = value

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of the three stages and of the centre."""
        skips = []
        for i in (1, 3, 5):
            x = F.relu(getattr(self, f"conv{i}")(x))
            skips.append(F.relu(getattr(self, f"conv{i + 1}")(x)))
            x = F.max_pool2d(skips[-1], 2)
        return skips, self.dilate_center(x)
