"""Scores of pixels: masks class by class, with a tolerance, along boundaries and skeletons, and by probability.

Images are counted first; counts add up over images and processes, and scores follow from them. A ratio without a
denominator is nan. A score that joins prediction and truth is nan where both are empty, and 0 where one of them is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from ..errors import DataError


def ratios(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return ``part / whole`` element by element, nan where ``whole`` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``, nan where ``whole`` is 0."""
    return float(part) / float(whole) if whole else float("nan")


@dataclass(frozen=True, eq=False)
class Counts:
    """Base of what is counted in an image: ``+`` and `sum` add counts up field by field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __radd__(self, start: Any) -> Self:
        if start != 0:
            return NotImplemented
        return self


@dataclass(frozen=True)
class MatchedCounts(Counts):
    """How much of the prediction is matched by the truth, and how much of the truth by the prediction.

    Attributes:
        matched_prediction: how much of the prediction is matched; pixels, or a length.
        prediction: how much is predicted.
        matched_truth: how much of the truth is matched.
        truth: how much there is.
    """

    matched_prediction: float
    prediction: float
    matched_truth: float
    truth: float

    @property
    def precision(self) -> float:
        """Share of the prediction that is matched; nan without a prediction."""
        return ratio(self.matched_prediction, self.prediction)

    @property
    def recall(self) -> float:
        """Share of the truth that is matched; nan without a truth."""
        return ratio(self.matched_truth, self.truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of both; nan where prediction and truth are empty, 0 where one is or nothing is matched."""
        if not self.prediction and not self.truth:
            return float("nan")
        if not self.matched_prediction or not self.matched_truth:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def quality(self) -> float:
        """Matched prediction, of the prediction and the unmatched truth together."""
        return ratio(self.matched_prediction, self.prediction + (self.truth - self.matched_truth))


def only_valid(valid: np.ndarray | None, *masks: np.ndarray) -> list[np.ndarray]:
    """Return each mask (H, W), bool, without the pixels where ``valid`` (H, W) is False; None counts them all.

    Raises:
        ValueError: an array is not bool, or they differ in shape.
    """
    arrays = [*masks] if valid is None else [*masks, valid]
    if any(array.dtype != bool or array.shape != masks[0].shape or array.ndim != 2 for array in arrays):
        raise ValueError(f"masks must be bool and of one shape, not {[(str(a.dtype), a.shape) for a in arrays]}")
    return [*masks] if valid is None else [mask & valid for mask in masks]


def confusion(prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Count the pixels of class indices (H, W), integers, by true and predicted class; ``ignore_index`` is left out.

    Returns:
        (C, C) int64, true classes along the rows, predicted ones along the columns.

    Raises:
        DataError: a counted label is not a class.
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction is of shape {prediction.shape}, the truth of {truth.shape}")
    valid = truth != ignore_index
    rows, columns = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for what, labels in (("truth", rows), ("prediction", columns)):
        strange = labels[(labels < 0) | (labels >= num_classes)]
        if strange.size:
            raise DataError(
                f"the {what} has the label {strange[0]}, but the classes are 0 to {num_classes - 1} and the ignored "
                f"label is {ignore_index}; check the masks and the number of classes"
            )
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes)


def region_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return IoU, F1, precision, recall and accuracy per class (C,) of a `confusion` (C, C), as MMSegmentation 0.30.

    ``accuracy`` is what MMSegmentation calls Acc, the recall of a class. F1 is that of mDice, which is 0 for a class
    that is only predicted or only true; mFscore calls it nan.
    """
    hits, truth, prediction = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall = ratios(hits, truth)
    return {
        "IoU": ratios(hits, truth + prediction - hits),
        "F1": ratios(2 * hits, truth + prediction),
        "precision": ratios(hits, prediction),
        "recall": recall,
        "accuracy": recall,
    }


def within_distance(mask: np.ndarray, distance_px: float) -> np.ndarray:
    """Return the pixels (H, W) whose centre is at most ``distance_px`` from that of a pixel of ``mask`` (H, W).

    The distance is exactly the Euclidean one: the mask is dilated by the disk of all offsets of at most that length.
    Up to about 20 pixels this is faster than a distance transform.
    """
    if distance_px < 0:
        raise ValueError(f"a distance is at least 0, not {distance_px}")
    reach = np.arange(-int(distance_px), int(distance_px) + 1)
    disk = np.sqrt(reach**2 + reach[:, None] ** 2) <= distance_px
    return cv2.dilate(np.ascontiguousarray(mask).view(np.uint8), disk.view(np.uint8)).view(bool)


def _matches(
    prediction: np.ndarray, near_prediction: np.ndarray, truth: np.ndarray, near_truth: np.ndarray
) -> MatchedCounts:
    """Count the pixels of each mask, and those of them that lie in what is near the other."""
    counted = (prediction & near_truth, prediction, truth & near_prediction, truth)
    return MatchedCounts(*(int(np.count_nonzero(mask)) for mask in counted))


def relaxed_counts(
    prediction: np.ndarray, truth: np.ndarray, rho_px: float = 3.0, valid: np.ndarray | None = None
) -> MatchedCounts:
    """Count predicted road pixels within ``rho_px`` of a true one, and true ones within it of a predicted one.

    Precision, recall and F1 of the counts are the relaxed ones of Mnih and Hinton, "Learning to Detect Roads in
    High-Resolution Aerial Images", ECCV 2010. With ``rho_px`` 0 they are those of the pixels. It is the exact Euclidean
    distance of pixel centres; 3 in the paper. All masks are (H, W) bool; where ``valid`` is False, pixels neither count
    nor match.
    """
    prediction, truth = only_valid(valid, prediction, truth)
    return _matches(prediction, within_distance(prediction, rho_px), truth, within_distance(truth, rho_px))


def cldice_counts(
    prediction: np.ndarray,
    truth: np.ndarray,
    prediction_skeleton: np.ndarray,
    truth_skeleton: np.ndarray,
    valid: np.ndarray | None = None,
) -> MatchedCounts:
    """Count the pixels of each skeleton, and those of them that lie in the other mask; all (H, W) bool.

    Of the counts, precision is the topology precision |S_P and V_L| / |S_P|, recall the topology sensitivity
    |S_L and V_P| / |S_L|, and F1 clDice, after Shit et al., "clDice - a Novel Topology-Preserving Loss Function for
    Tubular Structure Segmentation", CVPR 2021: V_P is the prediction, V_L the truth, S_P and S_L are their skeletons.
    Pixels are ignored where ``valid`` is False.
    """
    prediction_skeleton, truth_skeleton, prediction, truth = only_valid(
        valid, prediction_skeleton, truth_skeleton, prediction, truth
    )
    return _matches(prediction_skeleton, prediction, truth_skeleton, truth)


@dataclass(frozen=True)
class BoundaryCounts(Counts):
    """Pixels that the boundaries of two masks share, and pixels of either."""

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
    of ignored areas are no contour, because the road continues there unseen; a mask without background has none.
    """
    inside, outside = only_valid(valid, mask, ~mask)
    return inside & within_distance(outside, distance_px)


def boundary_counts(
    prediction: np.ndarray, truth: np.ndarray, distance_px: float = 3.0, valid: np.ndarray | None = None
) -> BoundaryCounts:
    """Count the pixels that the boundaries of prediction and truth share and cover; their ratio is boundary IoU.

    From Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021, with two
    differences. The distance is given in pixels: the paper's 2 % of the image's diagonal (29 px at 1024 x 1024) turns
    every pixel of a road into boundary, and boundary IoU into plain IoU. And a mask cut by the image's border or by an
    ignored area has no edge there, where the published code, which pads with background, sees one.

    Boundaries are ``distance_px`` wide, inside the masks (H, W) bool; pixels are ignored where ``valid`` is False.
    """
    predicted, true = boundary(prediction, distance_px, valid), boundary(truth, distance_px, valid)
    return BoundaryCounts(int(np.count_nonzero(predicted & true)), int(np.count_nonzero(predicted | true)))


BINS = 300
"""Equal bins of [0, 1]: every whole per cent is an edge, 0.5 too, and 10, 12, 15, 20 or 25 coarser bins fit."""


@dataclass(frozen=True, eq=False)
class ProbabilityCounts(Counts):
    """Pixels by truth and probability of road, from which thresholds, calibration and uncertainty are scored.

    Bin k holds probabilities from k / `BINS` to below (k + 1) / `BINS`, the last one also 1. Whatever is computed from
    the counts is exact for thresholds at these edges; inside a bin, pixels count as equally certain.

    Attributes:
        pixels: (2, BINS) int64, first the background pixels, then the road.
        probability_sums: (BINS,) float64, sum of the probabilities in each bin.
    """

    pixels: np.ndarray
    probability_sums: np.ndarray


class PrecisionRecallCurve(NamedTuple):
    """Scores (BINS,) where road is what has at least a probability, by rising threshold; nan as in `ratios`."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


class CalibrationCurve(NamedTuple):
    """Bins of like probability that hold a pixel, at most as many as asked for, by rising probability."""

    mean_probability: np.ndarray
    road_share: np.ndarray
    pixels: np.ndarray


def probability_counts(
    probability: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> ProbabilityCounts:
    """Count the pixels of an image by truth (H, W) bool and probability of road (H, W), floats from 0 to 1.

    Pixels are ignored where ``valid`` (H, W) is False, whatever their probability.

    Raises:
        DataError: a counted probability is not between 0 and 1.
        ValueError: the shapes differ, or probabilities are not floats.
    """
    road, ground = only_valid(valid, truth, ~truth)
    if probability.shape != truth.shape or probability.dtype.kind != "f":
        found = f"{probability.dtype} of shape {probability.shape}"
        raise ValueError(f"probabilities must be floats of shape {truth.shape}, not {found}")
    counted = [probability[ground], probability[road]]
    for part in counted:
        if part.size and not (part.min() >= 0 and part.max() <= 1):
            raise DataError(
                f"probabilities must lie between 0 and 1, but there are some from {part.min()} to {part.max()}; "
                "divide scores by their largest value, and replace NaN"
            )
    # edges in the probabilities' own precision: 0.29 in float32 is at least 0.29, as in a comparison of arrays
    inner_edges = (np.arange(1, BINS) / BINS).astype(probability.dtype)
    bins = [np.searchsorted(inner_edges, part, side="right") for part in counted]
    return ProbabilityCounts(
        pixels=np.stack([np.bincount(each, minlength=BINS) for each in bins]),
        probability_sums=np.bincount(np.concatenate(bins), np.concatenate(counted), minlength=BINS),
    )


def precision_recall_curve(counts: ProbabilityCounts) -> PrecisionRecallCurve:
    """Return precision, recall and F1 of the road with each lower edge of a bin as the threshold, 0 included."""
    false_hits, hits = counts.pixels[:, ::-1].cumsum(axis=1)[:, ::-1]
    prediction, truth = hits + false_hits, counts.pixels[1].sum()
    return PrecisionRecallCurve(
        np.arange(BINS) / BINS, ratios(hits, prediction), ratios(hits, truth), ratios(2 * hits, prediction + truth)
    )


def best_threshold(counts: ProbabilityCounts) -> float:
    """Return the threshold of the highest F1, of several the one nearest 0.5; nan where there is no true road."""
    if not counts.pixels[1].any():
        return float("nan")
    curve = precision_recall_curve(counts)
    best = curve.thresholds[curve.f1 == curve.f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def calibration_curve(counts: ProbabilityCounts, bins: int = 15) -> CalibrationCurve:
    """Return mean probability, share of road and number of pixels in equal bins of [0, 1]; empty bins are left out.

    Raises:
        ValueError: ``bins`` does not divide `BINS`.
    """
    if BINS % bins:
        raise ValueError(f"calibration bins must divide {BINS}, which {bins} does not")
    road = counts.pixels[1].reshape(bins, -1).sum(axis=1)
    pixels = counts.pixels.sum(axis=0).reshape(bins, -1).sum(axis=1)
    sums = counts.probability_sums.reshape(bins, -1).sum(axis=1)
    some = pixels > 0
    return CalibrationCurve(sums[some] / pixels[some], road[some] / pixels[some], pixels[some])


def expected_calibration_error(counts: ProbabilityCounts, bins: int = 15) -> float:
    """Return how far the mean probability of road is from the share of road, averaged over the pixels.

    The expected calibration error of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with 15 bins
    as there, but of P(road) from 0 to 1 instead of the winning class's; a bin has its lower edge. nan without pixels.
    """
    probability, share, pixels = calibration_curve(counts, bins)
    return ratio((pixels * np.abs(share - probability)).sum(), pixels.sum())


def error_found(counts: ProbabilityCounts, share: float = 0.1) -> float:
    """Return which part of the wrong pixels (threshold 0.5) lies among the ``share`` of pixels that are least certain.

    That is how much of the error a person finds who looks only there. Pixels are looked at by falling binary entropy,
    that is by rising |p - 0.5|, two bins as far from 0.5 at a time; the last ones are shared out proportionally.

    Returns:
        0 to 1; nan where no pixel is wrong.
    """
    half = BINS // 2
    wrong = np.concatenate([counts.pixels[1, :half], counts.pixels[0, half:]])
    # ring r: the r-th bins below and above 0.5
    wrong_by_ring, pixels_by_ring = (each[:half][::-1] + each[half:] for each in (wrong, counts.pixels.sum(axis=0)))
    before = pixels_by_ring.cumsum() - pixels_by_ring
    looked_at = np.clip(share * pixels_by_ring.sum() - before, 0, pixels_by_ring)
    return ratio(np.nansum(wrong_by_ring * ratios(looked_at, pixels_by_ring)), wrong.sum())


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the binary entropy in bits of ``probability`` (H, W), floats from 0 to 1: 1 at 0.5, 0 at 0 and at 1."""
    tiny = np.finfo(probability.dtype).tiny
    rest = 1 - probability
    return -probability * np.log2(np.maximum(probability, tiny)) - rest * np.log2(np.maximum(rest, tiny))
