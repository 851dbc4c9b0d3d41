"""Pipeline step that reads a label mask."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from mmseg.datasets.builder import PIPELINES
from PIL import Image

from ...errors import DataError
from ...geo import read_raster
from ..image_file import image_info, read_pixels

CONVERT_HINT = "convert the data with: python tools/convert_dataset.py pair SOURCE DEST"


def read_mask(path: str) -> np.ndarray:
    """Return the single-band 8-bit label mask at ``path`` as uint8 (H, W).

    Raises:
        DataError: the file is missing, truncated or not single-band 8-bit.
    """
    if path.lower().endswith((".tif", ".tiff")):
        values, _ = read_raster(path)
        if values.shape[2] != 1 or values.dtype != np.uint8:
            raise DataError(
                f"{path}: {values.shape[2]} bands of {values.dtype}, but a mask holds one 8-bit label; {CONVERT_HINT}"
            )
        return values[:, :, 0]
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise DataError(f"{path}: {image.mode} pixels, but a mask holds one 8-bit label; {CONVERT_HINT}")
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a mask ({error}); replace it or take it out of the split") from None


def check_labels(mask: np.ndarray, num_classes: int, ignore_index: int, path: str) -> None:
    """Refuse a mask that holds labels other than 0 to ``num_classes`` - 1 and ``ignore_index``.

    Raises:
        DataError: names the file, the values and the converter.
    """
    if mask.size and mask.max() < num_classes:
        return
    counts = np.bincount(mask.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    wrong = [int(v) for v in values if v >= num_classes and v != ignore_index]
    if wrong:
        shown = ", ".join(map(str, wrong[:6])) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise DataError(
            f"{path}: label values {shown} are none of the {num_classes} classes (0 to {num_classes - 1}) "
            f"nor {ignore_index} (ignore); {CONVERT_HINT}"
        )


def check_same_size(mask_shape: Sequence[int], image_shape: Sequence[int], mask_path: str, image_path: str) -> None:
    """Refuse a mask (H, W, ...) whose rows and columns are not its image's.

    Raises:
        DataError: names both files and both sizes.
    """
    if tuple(mask_shape[:2]) != tuple(image_shape[:2]):
        raise DataError(
            f"{mask_path}: the mask is {mask_shape[1]}x{mask_shape[0]} px but its image {image_path} is "
            f"{image_shape[1]}x{image_shape[0]} px; export both at the same size"
        )


def _valid_pixels(results: dict) -> np.ndarray | None:
    """Return where the image of ``results`` holds something, None where it does everywhere."""
    if "valid" in results:
        return results.pop("valid")
    if "img_info" not in results:
        return None
    path = os.path.join(results.get("img_prefix") or "", results["img_info"]["filename"])
    return read_pixels(path)[1] if image_info(path).may_have_holes else None


@PIPELINES.register_module()
class LoadRoadMask:
    """Reads ``results['ann_info']['seg_map']`` into ``results['gt_semantic_seg']``, uint8 (H, W).

    Pixels at which the image holds nothing become the ignore label.
    """

    def __call__(self, results: dict) -> dict:
        """Add the mask; refuse one whose labels or size do not fit."""
        path = os.path.join(results.get("seg_prefix") or "", results["ann_info"]["seg_map"])
        mask = read_mask(path)
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
