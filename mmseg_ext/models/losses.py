"""Losses for roads; MMSegmentation's own (cross-entropy, Dice, focal, Lovasz) are used as they are.

A new loss is a class here under ``@LOSSES.register_module()`` with a ``loss_name`` and the arguments of
`SoftClDiceLoss.forward`; a file in ``myconfigs/_base_/losses`` says how it is combined with others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmseg.models.builder import LOSSES
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError


def _erode(maps: Tensor) -> Tensor:
    """Return the minimum over each pixel and its four neighbours; outside the image nothing is lower."""
    around = functional.pad(maps, (1, 1, 1, 1), value=math.inf)
    across = torch.minimum(around[..., 1:-1, :-2], around[..., 1:-1, 2:])
    along = torch.minimum(around[..., :-2, 1:-1], around[..., 2:, 1:-1])
    return torch.minimum(torch.minimum(across, along), maps)


def _thinner(maps: Tensor, skeleton: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``maps`` without their outermost pixels, and ``skeleton`` with what an opening would lose of them."""
    eroded = _erode(maps)
    lost = functional.relu(maps - functional.max_pool2d(eroded, 3, stride=1, padding=1))
    return eroded, skeleton + (1 - skeleton) * lost


def soft_skeleton(maps: Tensor, max_width_px: int) -> Tensor:
    """Return the differentiable centrelines of ``maps``, 0 to 1, by iterated erosion.

    Algorithm 1 of Shit et al., clDice (CVPR 2021). Centrelines are one pixel thin, two where the width is
    even; those of oblique roads may have gaps of two pixels.

    Args:
        maps: probabilities (N, C, H, W), 0 to 1.
        max_width_px: what is wider than this, in any direction, has no centreline.
    """
    # a step takes a pixel from either side of a straight road, but only 1/sqrt(2) of one from a diagonal road's
    steps = math.ceil(max_width_px / math.sqrt(2))
    skeleton = torch.zeros_like(maps)
    for _ in range(steps + 1):
        # kept for the backward pass: two maps a step; the rest is computed again
        maps, skeleton = checkpoint(_thinner, maps, skeleton, use_reentrant=False, preserve_rng_state=False)
    return skeleton


@LOSSES.register_module()
class SoftClDiceLoss(nn.Module):
    """One minus the soft clDice of Shit et al. (CVPR 2021): how far the centrelines lie inside the other's roads.

    Computed at least in fp32, on the pixels of the whole batch as in the paper: an image without roads would be lost
    by its first false pixel alone. Processes add up their pixels, so that the gradient is the one of a single process
    with all images. It says little about where a road's edge is: combine it with cross-entropy and Dice.

    Args:
        max_width_px: the widest road of the training crops, in pixels; wider ones have no centreline. Time grows with
            it, and memory by 8 bytes per pixel for each 1.4 px.
        classes: labels whose pixels are lines; the loss is their mean.
        smooth: pixels added to both sides of each ratio; keeps a batch without roads defined.
        loss_weight: factor of the loss.
        loss_name: its name in the logs; starts with ``loss_``.
    """

    def __init__(
        self,
        max_width_px: int = 32,
        classes: Sequence[int] = (1,),
        smooth: float = 1.0,
        loss_weight: float = 1.0,
        loss_name: str = "loss_cldice",
    ) -> None:
        super().__init__()
        if max_width_px < 1:
            raise ConfigError(f"SoftClDiceLoss: max_width_px={max_width_px}; give the widest road in pixels, 1 or more")
        self.max_width_px, self.classes, self.smooth = max_width_px, tuple(classes), smooth
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = 255,
    ) -> Tensor:
        """Return the loss of a batch, a scalar from 0 to ``loss_weight``.

        Args:
            cls_score: logits (N, C, H, W); a single channel is the road's, for a sigmoid.
            label: labels (N, H, W).
            weight: of pixels; ignored, as by MMSegmentation's DiceLoss: centrelines have none.
            avg_factor: ignored.
            reduction_override: None or ``"mean"``; a `ConfigError` for ``"none"``: there is no loss for each pixel.
            ignore_index: label of pixels that are road in neither.
        """
        if reduction_override not in (None, "mean"):
            raise ConfigError(
                "SoftClDiceLoss has no loss for each pixel, which OHEMPixelSampler without thresh needs; "
                "set decode_head.sampler.thresh, for example 0.7"
            )
        with torch.autocast(cls_score.device.type, enabled=False):
            scores = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
            if scores.shape[1] == 1:
                predicted = scores.sigmoid()
            else:
                predicted = scores.softmax(1)[:, list(self.classes)]
            true = torch.stack([label == index for index in self.classes], 1).to(predicted.dtype)
            valid = torch.ones_like(label) if ignore_index is None else label != ignore_index
            predicted = torch.where(valid.bool()[:, None], predicted, 0)
            with torch.no_grad():
                true_lines = soft_skeleton(true, self.max_width_px)
            inside = self._share(soft_skeleton(predicted, self.max_width_px), true)
            found = self._share(true_lines, predicted)
            return self.loss_weight * (1 - 2 * inside * found / (inside + found)).mean()

    def _share(self, lines: Tensor, roads: Tensor) -> Tensor:
        """Return (C,): the share of ``lines`` that lies inside ``roads``, both (N, C, H, W), in all processes."""
        sums = torch.stack([(lines * roads).sum((0, 2, 3)), lines.sum((0, 2, 3))])
        if dist.is_initialized():
            sums = all_reduce(sums)  # sums the gradients too, of which DDP then takes the mean
        inside, whole = sums + self.smooth
        return inside / whole
