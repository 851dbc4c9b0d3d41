"""Any network of timm that gives features, as an encoder, and a U-Net decoder over the features of any encoder.

U-Net: Ronneberger et al., arXiv 1505.04597, here with batch norm and as a decode head. timm: pytorch-image-models.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.runner import BaseModule
from mmseg.models.builder import BACKBONES, HEADS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ..errors import ConfigError, lazy_import

# parts of EfficientNet-Lite as its own package calls them, and as timm does
_LITE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_BLOCK = dict(
    _bn0="bn1", _depthwise_conv="conv_dw", _bn1="bn2", _expand_conv="conv_pw", _project_conv="conv_pwl", _bn2="bn3"
)
_LITE_FIRST = dict(_depthwise_conv="conv_dw", _bn1="bn1", _project_conv="conv_pw", _bn2="bn2")


def _blocks_of_lite(weights: dict[str, Tensor]) -> dict[str, str]:
    """Return timm's name of every part of the blocks in EfficientNet-Lite's own ``weights``.

    Its package numbers the blocks through; timm counts within stages, whose blocks have equally many outputs.
    """
    names: dict[str, str] = {}
    stage, number, last = -1, 0, None
    for block in itertools.count():
        project = weights.get(f"_blocks.{block}._project_conv.weight")
        if project is None:
            return names
        stage, number = (stage, number + 1) if len(project) == last else (stage + 1, 0)
        last = len(project)
        parts = _LITE_BLOCK if f"_blocks.{block}._expand_conv.weight" in weights else _LITE_FIRST
        names.update({f"_blocks.{block}.{part}.": f"blocks.{stage}.{number}.{name}." for part, name in parts.items()})
    return names


@BACKBONES.register_module()
class TimmEncoder(BaseModule):
    """The features of a timm network: an image (B, in_channels, H, W) gives one map a level, the finest first.

    Weights come by ``init_cfg=dict(type="Pretrained", checkpoint=...)``: a file in timm's form, ``timm://NAME``, which
    timm downloads, or ``package://PACKAGE/FILE``, which an installed package brings.

    Args:
        name: timm's name of the network, such as ``tf_efficientnet_lite0``.
        in_channels: bands of the image.
        out_indices: levels to return; None: all.
        frozen: leave the weights and the statistics of batch norms as they were loaded.
        options: further arguments of ``timm.create_model``, such as ``drop_path_rate``.
        init_cfg: weights to start from.

    Raises:
        ConfigError: timm has no such network, or it gives no features; names like ones.
        MissingExtraError: timm is not installed.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        frozen: bool = False,
        options: dict[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        timm = lazy_import("timm", "train", "TimmEncoder")
        levels = {} if out_indices is None else dict(out_indices=tuple(out_indices))
        try:
            self.network = timm.create_model(
                name, features_only=True, in_chans=in_channels, **levels, **(options or {})
            )
        except (RuntimeError, TypeError, AttributeError, AssertionError, IndexError) as error:
            like = timm.list_models(f"*{name.split('.')[0]}*")[:3]
            hint = f"timm has {', '.join(like)}" if like else "timm.list_models() has their names"
            raise ConfigError(f"TimmEncoder: {name!r} gives no features ({error}); {hint}") from None
        self.name, self.frozen = name, frozen
        self.channels: list[int] = self.network.feature_info.channels()
        self.stride: int = max(self.network.feature_info.reduction())
        self.requires_grad_(not frozen)

    def init_weights(self) -> None:
        """Keep the first weights that timm has drawn; ``init_cfg`` files are loaded by the engine afterwards."""
        self._is_init = True

    @staticmethod
    def adapt_published_keys(state_dict: dict[str, Tensor], prefix: str = "") -> None:
        """Bring keys of timm, or of EfficientNet-Lite's own package, under ``prefix`` into this form, in place."""
        theirs = [key for key in state_dict if key.startswith(prefix) and not key.startswith(f"{prefix}network.")]
        parts: dict[str, str] = {}
        if f"{prefix}_conv_stem.weight" in state_dict:
            parts = {**_blocks_of_lite({key.removeprefix(prefix): state_dict[key] for key in theirs}), **_LITE}
        for key in theirs:
            name = key.removeprefix(prefix)
            part = next((part for part in parts if name.startswith(part)), "")
            state_dict[f"{prefix}network.{parts.get(part, '')}{name.removeprefix(part)}"] = state_dict.pop(key)

    def train(self, mode: bool = True) -> TimmEncoder:
        """Switch to training, or evaluation; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features (B, C, H / s, W / s) of every level, the finest first."""
        return tuple(self.network(x))


@HEADS.register_module()
class UNetHead(BaseDecodeHead):
    """U-Net's way up: from the coarsest feature, twice the size and the next finer feature beside it, level by level.

    The scores have the size of the finest feature; MMSegmentation brings them to that of the image.

    Args:
        in_channels: channels of the encoder's features, the finest first.
        widths: channels after each level, from the coarsest; one fewer than features. The last is ``channels``.
        kwargs: further arguments of MMSegmentation's ``BaseDecodeHead``.

    Raises:
        ConfigError: another number of widths than levels.
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[int] = (256, 128, 64, 32), **kwargs: Any) -> None:
        if len(widths) != len(in_channels) - 1:
            raise ConfigError(
                f"UNetHead: {len(widths)} widths for {len(in_channels)} features; give one fewer than features"
            )
        super().__init__(
            in_channels=list(in_channels),
            channels=widths[-1],
            in_index=list(range(len(in_channels))),
            input_transform="multiple_select",
            **kwargs,
        )
        settings = dict(padding=1, conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.levels = nn.ModuleList()
        below = in_channels[-1]
        for skip, width in zip(reversed(in_channels[:-1]), widths, strict=True):
            convs = ConvModule(below + skip, width, 3, **settings), ConvModule(width, width, 3, **settings)
            self.levels.append(nn.Sequential(*convs))
            below = width

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) of the encoder's features, the finest (B, C, h, w) first."""
        *skips, x = self._transform_inputs(inputs)
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            x = level(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], dim=1))
        return self.cls_seg(x)
