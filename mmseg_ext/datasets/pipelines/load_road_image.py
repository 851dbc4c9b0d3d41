"""Pipeline step that reads an image."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from mmseg.datasets.builder import PIPELINES

from ..image_reading import ImageReading


def to_bgr(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) with its bands reversed, as MMSegmentation wants pictures; other images as they are."""
    return np.ascontiguousarray(image[:, :, ::-1] if image.shape[2] == 3 else image)


@PIPELINES.register_module()
class LoadRoadImage:
    """Reads ``results['img_info']['filename']`` into ``results['img']``, uint8 (H, W, B).

    Three bands become BGR; any other number stays in its order, and ``Normalize`` then needs ``to_rgb=False``.
    Pixels without an image (alpha 0, nodata) take the mean of the others and stand in ``results['valid']`` (H, W),
    which `LoadRoadMask` turns into the ignore label. An image given as an array in ``results['img']`` is taken as
    it is.

    Args:
        bands: numbers from 1 of the bands to read; None: what the data set's ``dataset.json`` says.
        low: raw value of each band that becomes 0; None: what ``dataset.json`` says.
        high: raw value of each band that becomes 255; None: what ``dataset.json`` says.
        gsd_m: metres per pixel; None: what ``dataset.json`` says.

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
