"""Pipeline step that reads an image."""

from __future__ import annotations

import os

import numpy as np
from mmseg.datasets.builder import PIPELINES
from PIL import Image

from ...errors import DataError


def read_image(path: str) -> np.ndarray:
    """Return the 8-bit image at ``path`` as BGR (H, W, 3); an alpha band is dropped.

    Raises:
        DataError: the file is missing, truncated or no 8-bit image.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path}: {image.mode} pixels, but 8-bit images are needed; rescale them to 0-255")
            return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({error}); replace it or take it out of the split"
        ) from None


@PIPELINES.register_module()
class LoadRoadImage:
    """Reads ``results['img_info']['filename']`` into ``results['img']``, BGR uint8 (H, W, 3).

    An image given as an array in ``results['img']`` is taken as it is.
    """

    def __call__(self, results: dict) -> dict:
        """Add the image and MMSegmentation's bookkeeping keys."""
        if "img_info" in results:
            name = results["img_info"]["filename"]
            path = os.path.join(results.get("img_prefix") or "", name)
            image = read_image(path)
        else:
            name = path = None
            image = results["img"]
        results.update(
            filename=path,
            ori_filename=name,
            img=image,
            img_shape=image.shape,
            ori_shape=image.shape,
            pad_shape=image.shape,
            scale_factor=1.0,
            flip=False,
            flip_direction=None,
            img_norm_cfg=dict(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32), to_rgb=False),
        )
        return results
