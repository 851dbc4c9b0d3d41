"""Relaxed precision, recall and F1 of road pixels: a hit may be off by a few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import networkx as nx
import numpy as np

from .graph_points import RoadLines, points_on, road_lines, samples, snap
from .region import Counts, MatchedCounts, only_valid, ratio


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


# -- metrics.boundary
# Boundary IoU: how well the outlines of two masks agree.


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


# -- metrics.centreline
# Buffer scores of centrelines: completeness, correctness, quality.

_PIECE = 0.5


class CentrelineLengths(NamedTuple):
    """Lengths of lines in the unit of the coordinates; those of several images add up, field by field."""

    matched_prediction: float
    prediction: float
    matched_truth: float
    truth: float


class CentrelineScores(NamedTuple):
    """Shares 0..1; nan where there is nothing to score."""

    completeness: float
    correctness: float
    quality: float


def centreline_lengths(prediction: nx.MultiGraph, truth: nx.MultiGraph, buffer: float = 3.0) -> CentrelineLengths:
    """Measure how much of either graph's lines lies within ``buffer`` of the other's.

    Lines are parted into pieces of at most 0.5 unit; a piece counts whole where its middle is at most ``buffer`` from
    the other graph's lines (exact distance). So each place where a line enters or leaves the buffer puts the length
    wrong by at most 0.25 unit.

    Args:
        prediction: road graph.
        truth: road graph in the same frame and unit.
        buffer: half width of the buffer, in the unit of the coordinates.

    Returns:
        matched and whole lengths.
    """
    ours, theirs = road_lines(prediction), road_lines(truth)
    return CentrelineLengths(
        matched_prediction=_matched(ours, theirs, buffer),
        prediction=float(ours.lengths.sum()),
        matched_truth=_matched(theirs, ours, buffer),
        truth=float(theirs.lengths.sum()),
    )


def centreline_scores(lengths: CentrelineLengths) -> CentrelineScores:
    """Score the lengths of one image or the sum of many (Heipke et al. 1997; Wiedemann et al. 1998).

    completeness = matched truth / truth; correctness = matched prediction / prediction;
    quality = matched prediction / (prediction + unmatched truth).
    """
    unmatched = lengths.truth - lengths.matched_truth
    return CentrelineScores(
        completeness=ratio(lengths.matched_truth, lengths.truth),
        correctness=ratio(lengths.matched_prediction, lengths.prediction),
        quality=ratio(lengths.matched_prediction, lengths.prediction + unmatched),
    )


def _matched(roads: RoadLines, other: RoadLines, buffer: float) -> float:
    at, size = samples(roads, _PIECE)
    return float(size[snap(other, points_on(roads, at), buffer).edge >= 0].sum())


# -- metrics.cldice
# clDice: do the skeletons of two masks lie in the other mask?


def cldice_counts(
    prediction: np.ndarray,
    truth: np.ndarray,
    prediction_skeleton: np.ndarray,
    truth_skeleton: np.ndarray,
    valid: np.ndarray | None = None,
) -> MatchedCounts:
    """Count the pixels of each skeleton, and those of them that lie in the other mask.

    Of the counts, precision is the topology precision |S_P and V_L| / |S_P|, recall the topology sensitivity
    |S_L and V_P| / |S_L|, and F1 clDice, after Shit et al., "clDice - a Novel Topology-Preserving Loss Function for
    Tubular Structure Segmentation", CVPR 2021.

    Args:
        prediction: road pixels V_P (H, W) bool.
        truth: road pixels V_L (H, W) bool.
        prediction_skeleton: skeleton S_P of the prediction (H, W) bool.
        truth_skeleton: skeleton S_L of the truth (H, W) bool.
        valid: (H, W) bool, False where pixels are ignored.
    """
    prediction_skeleton, truth_skeleton, prediction, truth = only_valid(
        valid, prediction_skeleton, truth_skeleton, prediction, truth
    )
    return MatchedCounts(
        matched_prediction=int(np.count_nonzero(prediction_skeleton & truth)),
        prediction=int(np.count_nonzero(prediction_skeleton)),
        matched_truth=int(np.count_nonzero(truth_skeleton & prediction)),
        truth=int(np.count_nonzero(truth_skeleton)),
    )
