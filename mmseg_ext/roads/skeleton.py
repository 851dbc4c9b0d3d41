"""Centrelines of road masks, and how wide the road is around them."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import label
from skimage.morphology import skeletonize


def skeleton(mask: np.ndarray) -> np.ndarray:
    """Return the centrelines of a road mask, one pixel wide.

    The image's border is no end of a road: a road that leaves the image has a centreline that runs straight to the
    border. A road that lies along the border keeps a centreline in the middle of what is seen of it. Where all is road,
    the line is what remains in the middle.

    Args:
        mask: road pixels, bool or uint8 (H, W), non-zero is road.

    Returns:
        bool (H, W), 8-connected, inside the mask. Each piece of the mask has a centreline with as many holes as the
        piece, in one part unless it leaves the image in between (Zhang and Suen, "A fast parallel algorithm for
        thinning digital patterns", CACM 1984).
    """
    mask = np.asarray(mask, bool)
    if mask.all():
        return skeletonize(mask)
    extended, margin = _extended(mask)
    height, width = mask.shape
    lines = skeletonize(extended)[margin : margin + height, margin : margin + width]
    pieces, count = label(mask, np.ones((3, 3)))
    lost = np.setdiff1d(np.arange(1, count + 1), pieces[lines])  # their middle is outside the image
    return lines | skeletonize(np.isin(pieces, lost)) if len(lost) else lines


def half_width(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each road pixel's centre to that of the nearest pixel beside the road, (H, W) float64.

    On a centreline, ``2 * half_width - 1`` is the width of the road in pixels: exact for a level or upright road of an
    odd width; one pixel less for an even width, which has no pixel in its middle; up to two less for an oblique road.
    The image's border is not the road's edge: the distance is to pixels inside the image only, which is the same as
    repeating the outermost pixels beyond it. A mask that is all road ends at the border, and is as wide as the image.

    Args:
        mask: road pixels, bool or uint8 (H, W), non-zero is road.
    """
    mask = np.asarray(mask, bool)
    if mask.all():
        return _distance(np.pad(mask, 1))[1:-1, 1:-1]
    return _distance(mask)


def _distance(mask: np.ndarray) -> np.ndarray:
    # a fraction of the time of scipy's; its float32 depends on the place in the image, the square is a whole number
    rough = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(rough.astype(np.float64) ** 2))


def _extended(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ``mask`` with its outermost pixels repeated beyond the border where roads leave, and how many times."""
    margin = 1 + int(half_width(mask).max())  # the end of a road shapes its centreline that far
    extended = np.pad(mask, margin, mode="edge")
    for turn in range(4):
        beyond = np.rot90(extended, turn)[:margin]  # a view: writing to it writes to the image
        inside = np.rot90(mask, turn)
        for start, end in _runs_along(inside):
            first = margin + start if start > 0 else 0
            last = margin + end if end < inside.shape[1] else None
            beyond[:, first:last] = False
    return extended, margin


def _runs_along(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, end) of the runs of road pixels in the first row along which a road lies, rather than leaves.

    Such a run is long for the depth of the road behind it (a road at 45 degrees is half as deep on average, and as
    deep at most, as its run is long), or the road soon widens to both sides, as a bend does that touches the border.
    """
    depth = np.where(mask.all(axis=0), len(mask), (~mask).argmax(axis=0))
    runs = np.flatnonzero(np.diff(mask[0], prepend=False, append=False)).reshape(-1, 2).tolist()

    def along(start: int, end: int) -> bool:
        deep = depth[start:end]
        return end - start > min(4 * deep.mean(), 2 * deep.max()) or _widens(mask[min(2, len(mask) - 1)], start, end)

    return [(start, end) for start, end in runs if along(start, end)]


def _widens(row: np.ndarray, start: int, end: int) -> bool:
    """Say whether the road in ``row`` (W,) goes on two pixels to both sides of a run that the image does not end."""
    return 2 <= start and end <= len(row) - 2 and bool(row[start - 2 : end + 2].all())
