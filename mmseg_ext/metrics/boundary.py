"""Boundary IoU: how well the outlines of two masks agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ratios import Counts, only_valid, ratio
from .relaxed import within_distance


@dataclass(frozen=True)
class BoundaryCounts(Counts):
    """Pixels of the boundaries of two masks.

    Attributes:
        intersection: pixels of both boundaries.
        union: pixels of either.
    """

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Boundary IoU; nan where neither mask has a contour."""
        return ratio(self.intersection, self.union)


def boundary(mask: np.ndarray, distance_px: float = 3.0, valid: np.ndarray | None = None) -> np.ndarray:
    """Return the pixels (H, W) of ``mask`` that lie within ``distance_px`` of its contour, on the inner side.

    The contour is where mask and background meet; a pixel's distance from it is the exact Euclidean one to the
    nearest background pixel, centre to centre, so that 1 gives the outermost pixels. The image's border and the edge
    of ignored areas are no contour, for the road goes on there unseen; a mask without background has none.

    Args:
        mask: (H, W) bool.
        distance_px: breadth of the boundary in pixels.
        valid: (H, W) bool, False where pixels are ignored.
    """
    inside, outside = only_valid(valid, mask, ~mask)
    return inside & within_distance(outside, distance_px)


def boundary_counts(
    prediction: np.ndarray, truth: np.ndarray, distance_px: float = 3.0, valid: np.ndarray | None = None
) -> BoundaryCounts:
    """Count the pixels that the boundaries of prediction and truth share and cover; their ratio is boundary IoU.

    From Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021, with two
    differences. The distance is given in pixels: the paper's 2 % of the image's diagonal (29 px at 1024 x 1024) makes
    boundary of every pixel of a road, and boundary IoU plain IoU. And a mask cut by the image's border or by an
    ignored area has no edge there, where the published code, which pads with background, sees one.

    Args:
        prediction: road pixels (H, W) bool.
        truth: road pixels (H, W) bool.
        distance_px: breadth of the boundaries in pixels, inside the masks.
        valid: (H, W) bool, False where pixels are ignored.
    """
    predicted, true = boundary(prediction, distance_px, valid), boundary(truth, distance_px, valid)
    return BoundaryCounts(
        intersection=int(np.count_nonzero(predicted & true)), union=int(np.count_nonzero(predicted | true))
    )
