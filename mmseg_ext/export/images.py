"""Images to calibrate and to check exported networks with."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv import Config
from mmseg.datasets import build_dataset

from ..datasets.image_file import IMAGE_SUFFIXES
from ..datasets.pipelines.load_road_image import to_bgr
from ..engine.config import config_mistakes, load_config
from ..errors import DataError, UserError
from .facts import NetworkFacts

_MAX_IMAGES = 128
_MAX_SIDE = 1024


def calibration_images(source: str | None, cfg: Config, facts: NetworkFacts) -> list[np.ndarray]:
    """Return normalised images (1, C, H, W) like those that the network will see, sides multiples of its stride.

    Args:
        source: folder of images, or a config, whose training images are taken; None takes those of ``cfg``.
        cfg: config of the network.
        facts: of the network.

    Raises:
        UserError: there are none, or they do not fit.
    """
    if source is not None and not source.endswith(".py"):
        return _of_folder(source, facts)
    data = load_config(source) if source else cfg
    split = copy.deepcopy(data.data.val)
    split.update({key: data.data.train[key] for key in ("data_root", "split") if key in data.data.train})
    try:
        with config_mistakes(data):
            dataset = build_dataset(split, dict(test_mode=True))
    except UserError as error:
        if source:
            raise
        raise DataError(f"int8 is calibrated with images, and {error}; or give --calibration, a folder") from None
    chosen = _spread(range(len(dataset)))
    return [_fitting(dataset[i]["img"][0].permute(1, 2, 0).numpy(), facts.stride) for i in chosen]


def _of_folder(folder: str, facts: NetworkFacts) -> list[np.ndarray]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; --calibration takes a folder of images or a config")
    paths = sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}); give a folder of images")
    normalize = facts.normalize()
    images = []
    for path in _spread(paths):
        image, _ = facts.reading.read(path)
        normalized = normalize(dict(img=to_bgr(image[:_MAX_SIDE, :_MAX_SIDE]), filename=path))["img"]
        images.append(_fitting(normalized, facts.stride))
    return images


def _spread(items: Sequence) -> list:
    """Return at most `_MAX_IMAGES` of ``items``, evenly spread."""
    count = min(len(items), _MAX_IMAGES)
    return [items[i * len(items) // count] for i in range(count)]


def _fitting(image: np.ndarray, stride: int) -> np.ndarray:
    """Return a normalised image (H, W, C) as (1, C, H, W), mirrored to multiples of ``stride``."""
    return padded_to(image.transpose(2, 0, 1)[None], stride)


def padded_to(batch: np.ndarray, stride: int) -> np.ndarray:
    """Return ``batch`` (N, C, H, W), mirrored below and at the right to multiples of ``stride``."""
    height, width = batch.shape[2:]
    padded = np.pad(batch, ((0, 0), (0, 0), (0, -height % stride), (0, -width % stride)), mode="reflect")
    return np.ascontiguousarray(padded, dtype=np.float32)


def synthetic_images(bands: int, height: int, width: int, count: int = 2) -> np.ndarray:
    """Return smooth noise (count, bands, height, width), normalised as images are."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((count, bands, height // 8, width // 8))
    noise = coarse.repeat(8, axis=2).repeat(8, axis=3) + 0.3 * rng.standard_normal((count, bands, height, width))
    return noise.astype(np.float32)
