"""Pipeline step that brings images to one ground sampling distance."""

from __future__ import annotations

import cv2
import numpy as np
from mmseg.datasets.builder import PIPELINES

from ...errors import ConfigError


def gsd_scale(results: dict, gsd_m: float, step: str) -> float:
    """Return by how much the image of ``results`` must grow to have ``gsd_m`` metres per pixel.

    Args:
        results: what the pipeline's steps hand on.
        gsd_m: wanted ground sampling distance, metres per pixel.
        step: name of the step that asks, for the message.

    Raises:
        ConfigError: the image's own ground sampling distance is not known.
    """
    if results.get("gsd_m") is None:
        raise ConfigError(
            f"{results.get('filename')}: {step} needs the ground sampling distance of the images; give it in metres "
            'per pixel as "gsd_m" in the data set\'s dataset.json, or as LoadRoadImage(gsd_m=...)'
        )
    return float(results["gsd_m"] / gsd_m)


@PIPELINES.register_module()
class ScaleToGSD:
    """Resizes image and masks so that a pixel covers ``gsd_m`` metres of ground.

    For training, and for evaluation in front of ``MultiScaleFlipAug(img_scale=None, img_ratios=1.0)``; predictions
    come back at the original size. The image is averaged over pixel areas where it shrinks and interpolated linearly
    where it grows, masks take the nearest pixel.

    Args:
        gsd_m: ground sampling distance, metres per pixel.

    Raises:
        ConfigError: ``gsd_m`` is not positive, or that of an image is not known.
    """

    def __init__(self, gsd_m: float) -> None:
        if gsd_m <= 0:
            raise ConfigError(f"ScaleToGSD: gsd_m={gsd_m}; give metres per pixel, more than 0")
        self.gsd_m = gsd_m

    def __call__(self, results: dict) -> dict:
        """Resize ``img`` and every field of ``seg_fields``."""
        image = results["img"]
        height, width, bands = image.shape
        scale = gsd_scale(results, self.gsd_m, "ScaleToGSD")
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            results["img"] = cv2.resize(image, size, interpolation=way).reshape(size[1], size[0], bands)
            for key in results.get("seg_fields", []):
                results[key] = cv2.resize(results[key], size, interpolation=cv2.INTER_NEAREST)
        by_axis = [size[0] / width, size[1] / height]
        results.update(
            img_shape=results["img"].shape,
            pad_shape=results["img"].shape,
            scale_factor=np.array(by_axis * 2, dtype=np.float32),
            keep_ratio=True,
            gsd_m=self.gsd_m,
        )
        return results

    def __repr__(self) -> str:
        """Return the step as it stands in a config."""
        return f"ScaleToGSD(gsd_m={self.gsd_m})"
