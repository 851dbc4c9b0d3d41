"""Class probabilities of one image, averaged over flipped, scaled and rotated copies of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv import Config

from ..errors import ConfigError

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
AUGMENTATIONS = ("flips", "scales", "rotations")


def use_augmentations(cfg: Config, names: Sequence[str]) -> None:
    """Set the test pipeline of ``cfg`` to average over augmentations.

    Args:
        cfg: what `load_config` returned; changed in place.
        names: of `AUGMENTATIONS`: flips (mirrored left to right), scales (`SCALES`), rotations (by 0, 90, 180 and
            270 degrees; with flips these are all eight symmetries of the square).

    Raises:
        ConfigError: the pipeline has no MultiScaleFlipAug, or a name is unknown.
    """
    if unknown := [name for name in names if name not in AUGMENTATIONS]:
        raise ConfigError(f"--tta {unknown[0]}: unknown; choose from {', '.join(AUGMENTATIONS)}")
    steps = [step for step in cfg.data.test.pipeline if step["type"] == "MultiScaleFlipAug"]
    if not steps:
        raise ConfigError("the test pipeline has no MultiScaleFlipAug, which test-time augmentation needs; add it")
    if "scales" in names:
        steps[0]["img_ratios"] = list(SCALES)
    if "flips" in names:
        steps[0]["flip"] = True
    if "rotations" in names:
        cfg.test_rotations = (0, 1, 2, 3)


def class_probabilities(
    network: Any, images: Sequence[torch.Tensor], metas: Sequence[Sequence[dict]], quarter_turns: Sequence[int] = (0,)
) -> torch.Tensor:
    """Return the mean of the network's probabilities over copies of one image, as MMSegmentation averages them.

    Args:
        network: a segmentor of MMSegmentation.
        images: copies from the test pipeline, (1, C, H, W) each, scaled or flipped.
        metas: the pipeline's meta data of each: ``img_shape``, ``ori_shape``, ``flip``.
        quarter_turns: rotations of every copy, in steps of 90 degrees counterclockwise.

    Returns:
        (classes, H, W) in the size of the original image; one channel for networks with a sigmoid.
    """
    total: torch.Tensor | None = None
    for image, (meta,) in zip(images, metas, strict=True):
        for turns in quarter_turns:
            found = _turned_inference(network, image, meta, turns) if turns else network.inference(image, [meta], True)
            total = found if total is None else total.add_(found)
    assert total is not None
    return total[0].div_(len(images) * len(quarter_turns))


def _turned_inference(network: Any, image: torch.Tensor, meta: dict, turns: int) -> torch.Tensor:
    """Return the prediction for the copy turned by ``turns`` times 90 degrees, turned back."""
    height, width = meta["img_shape"][:2]
    turned = torch.rot90(image[:, :, :height, :width], turns, (2, 3))  # without padding, which would change sides

    def exchanged(shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[1], shape[0], *shape[2:]) if turns % 2 else tuple(shape)

    changed = dict(meta, flip=False, img_shape=exchanged(meta["img_shape"]), ori_shape=exchanged(meta["ori_shape"]))
    found = torch.rot90(network.inference(turned, [changed], True), -turns, (2, 3))
    if not meta["flip"]:
        return found
    return found.flip(dims=(3,) if meta["flip_direction"] == "horizontal" else (2,))
