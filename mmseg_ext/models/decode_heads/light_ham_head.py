"""LightHamHead, the decoder of SegNeXt and D-SegNeXt (arXiv 2209.08575, Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.builder import HEADS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.ops import resize
from torch import Tensor

from ..layers import Hamburger


@HEADS.register_module()
class LightHamHead(BaseDecodeHead):
    """Joins several stages at the resolution of the first and adds global context with Hamburger.

    Args:
        ham_channels: width C of the Hamburger.
        ham_cfg: further arguments of `Hamburger` (rank, groups, steps, random_bases, seed).
        **kwargs: arguments of MMSegmentation's ``BaseDecodeHead``; ``in_channels`` and ``in_index``
            name the stages, ``channels`` is the width of the classifier's input.
    """

    def __init__(self, ham_channels: int = 512, ham_cfg: dict | None = None, **kwargs) -> None:
        super().__init__(input_transform="multiple_select", **kwargs)
        conv_cfg = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.squeeze = ConvModule(sum(self.in_channels), ham_channels, 1, **conv_cfg)
        self.hamburger = Hamburger(ham_channels, norm_cfg=self.norm_cfg, **(ham_cfg or {}))
        self.align = ConvModule(ham_channels, self.channels, 1, **conv_cfg)

    def forward(self, inputs: Sequence[Tensor], bases: Tensor | None = None) -> Tensor:
        """Return class scores at the resolution of the first selected stage.

        Args:
            inputs: features of all backbone stages, each (B, C_i, H_i, W_i).
            bases: start bases of the NMF (1 or B*S, D, R); drawn or fixed by the head when None.

        Returns:
            Logits (B, num_classes, H, W).
        """
        stages = self._transform_inputs(inputs)
        size = stages[0].shape[2:]
        stages = [stages[0]] + [
            resize(stage, size=size, mode="bilinear", align_corners=self.align_corners) for stage in stages[1:]
        ]
        x = self.squeeze(torch.cat(stages, dim=1))
        x = self.hamburger(x, bases)
        return self.cls_seg(self.align(x))
