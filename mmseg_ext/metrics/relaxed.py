"""Relaxed precision, recall and F1 of road pixels: a hit may be off by a few pixels."""

from __future__ import annotations

import cv2
import numpy as np

from .ratios import MatchedCounts, only_valid


def within_distance(mask: np.ndarray, distance_px: float) -> np.ndarray:
    """Return the pixels (H, W) whose centre is at most ``distance_px`` from that of a pixel of ``mask``.

    The distance is exactly the Euclidean one: the mask is dilated by the disk of all offsets of at most that length.

    Args:
        mask: (H, W) bool.
        distance_px: distance in pixels, at least 0; up to about 20 this is faster than a distance transform.
    """
    if distance_px < 0:
        raise ValueError(f"a distance is at least 0, not {distance_px}")
    reach = np.arange(-int(distance_px), int(distance_px) + 1)
    disk = np.sqrt(reach**2 + reach[:, None] ** 2) <= distance_px
    return cv2.dilate(np.ascontiguousarray(mask).view(np.uint8), disk.view(np.uint8)).view(bool)


def relaxed_counts(
    prediction: np.ndarray, truth: np.ndarray, rho_px: float = 3.0, valid: np.ndarray | None = None
) -> MatchedCounts:
    """Count predicted road pixels within ``rho_px`` of a true one, and true ones within it of a predicted one.

    Precision, recall and F1 of the counts are the relaxed ones of Mnih and Hinton, "Learning to Detect Roads in
    High-Resolution Aerial Images", ECCV 2010. With ``rho_px`` 0 they are those of the pixels.

    Args:
        prediction: road pixels (H, W) bool.
        truth: road pixels (H, W) bool.
        rho_px: slack in pixels, exact Euclidean distance of pixel centres; 3 in the paper.
        valid: (H, W) bool, False where pixels are ignored: they neither count nor match.
    """
    prediction, truth = only_valid(valid, prediction, truth)
    return MatchedCounts(
        matched_prediction=int(np.count_nonzero(prediction & within_distance(truth, rho_px))),
        prediction=int(np.count_nonzero(prediction)),
        matched_truth=int(np.count_nonzero(truth & within_distance(prediction, rho_px))),
        truth=int(np.count_nonzero(truth)),
    )
