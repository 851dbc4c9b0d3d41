"""Pipeline steps that read an image and its mask, and bring them to one ground sampling distance."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from mmseg.datasets.builder import PIPELINES

from ..errors import ConfigError, DataError
from ..imagery.raw_mask import read_stored
from ..imagery.reading import ImageReading, check_same_size, image_info, read_pixels
from ..imagery.voc import IGNORE

CONVERT_HINT = "convert the data with: python tools/convert_dataset.py pair SOURCE DEST"


def to_bgr(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) with its bands reversed, as MMSegmentation wants pictures; other images as they are."""
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # numpy takes 40 times as long
    return np.ascontiguousarray(image[:, :, ::-1] if image.shape[2] == 3 else image)


@PIPELINES.register_module()
class LoadRoadImage:
    """Reads ``results['img_info']['filename']`` into ``results['img']``, uint8 (H, W, B).

    Three bands become BGR; any other number stays in its order, and ``Normalize`` then needs ``to_rgb=False``.
    Pixels without an image (alpha 0, nodata) take the mean of the others and stand in ``results['valid']`` (H, W),
    which `LoadRoadMask` turns into the ignore label. An image given as an array in ``results['img']`` is taken as
    it is.

    Args:
        bands: numbers from 1 of the bands to read; like the others, ``dataset.json`` says it where it is None.
        low: raw value of each band that becomes 0.
        high: raw value of each band that becomes 255.
        gsd_m: metres per pixel.

    Raises:
        DataError: a file that cannot be read, or whose bands or depth do not fit.
    """

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        gsd_m: float | None = None,
    ) -> None:
        self.settings = dict(bands=bands, low=low, high=high, gsd_m=gsd_m)

    def reading(self, results: dict) -> ImageReading:
        """Return how this image is read: the data set's way, in which this step's own settings come first."""
        return results.get("reading", ImageReading()).with_settings(**self.settings)

    def __call__(self, results: dict) -> dict:
        """Add the image and MMSegmentation's bookkeeping keys."""
        reading = self.reading(results)
        if "img_info" in results:
            name = results["img_info"]["filename"]
            path = os.path.join(results.get("img_prefix") or "", name)
            image, valid = reading.read(path)
            image = to_bgr(image)
            results["valid"] = valid
        else:
            name = path = None
            image = results["img"]
        if reading.gsd_m is not None:
            results["gsd_m"] = reading.gsd_m
        results.update(
            filename=path,
            ori_filename=name,
            img=image,
            img_shape=image.shape,
            ori_shape=image.shape,
            pad_shape=image.shape,
            scale_factor=1.0,
            img_norm_cfg=dict(
                mean=np.zeros(image.shape[2], np.float32), std=np.ones(image.shape[2], np.float32), to_rgb=False
            ),
        )
        return results


def read_mask(path: str, ignore_index: int = IGNORE) -> np.ndarray:
    """Return the single-band 8-bit label mask at ``path`` as uint8 (H, W); another file is a DataError.

    Its nodata becomes ``ignore_index``.
    """
    values, _, valid = read_stored(path)
    if values.shape[2] != 1 or values.dtype != np.uint8:
        raise DataError(
            f"{path}: {values.shape[2]} band(s) of {values.dtype}, but a mask holds one 8-bit label; {CONVERT_HINT}"
        )
    return values[:, :, 0] if valid is None else np.where(valid, values[:, :, 0], ignore_index).astype(np.uint8)


def check_labels(mask: np.ndarray, num_classes: int, ignore_index: int, path: str) -> None:
    """Refuse a mask (H, W) with labels other than 0 to ``num_classes`` - 1 and ``ignore_index``, by a DataError."""
    if mask.size and mask.max() < num_classes:
        return
    values = np.flatnonzero(np.bincount(mask.ravel()))
    wrong = [int(v) for v in values if v >= num_classes and v != ignore_index]
    if wrong:
        shown = ", ".join(map(str, wrong[:6])) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise DataError(
            f"{path}: label values {shown} are none of the {num_classes} classes (0 to {num_classes - 1}) "
            f"nor {ignore_index} (ignore); {CONVERT_HINT}"
        )


def _valid_pixels(results: dict) -> np.ndarray | None:
    """Return the valid pixels (H, W) of the image of ``results``, None for all."""
    if "valid" in results:
        return results.pop("valid")
    if "img_info" not in results:
        return None
    path = os.path.join(results.get("img_prefix") or "", results["img_info"]["filename"])
    bands = results.get("reading", ImageReading()).bands
    return read_pixels(path, bands=bands)[1] if image_info(path).may_have_holes else None


@PIPELINES.register_module()
class LoadRoadMask:
    """Reads ``results['ann_info']['seg_map']`` into ``results['gt_semantic_seg']``, uint8 (H, W).

    Pixels at which the image is nodata or transparent become the ignore label.
    """

    def __call__(self, results: dict) -> dict:
        """Add the mask; refuse one whose labels or size do not fit."""
        path = os.path.join(results.get("seg_prefix") or "", results["ann_info"]["seg_map"])
        mask = read_mask(path, results["ignore_index"])
        check_labels(mask, results["num_classes"], results["ignore_index"], path)
        if "img" in results:
            check_same_size(mask.shape, results["img"].shape, path, results["filename"])
        valid = _valid_pixels(results)
        if valid is not None:
            check_same_size(mask.shape, valid.shape, path, results["img_info"]["filename"])
            mask[~valid] = results["ignore_index"]
        results["gt_semantic_seg"] = mask
        results["seg_fields"].append("gt_semantic_seg")
        return results


def gsd_scale(results: dict, gsd_m: float, step: str) -> float:
    """Return by how much the image of ``results`` must grow to have ``gsd_m`` metres per pixel, for ``step``.

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
