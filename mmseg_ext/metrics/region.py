"""Counts that add up over images, and the ratios made of them.

The convention for nothing to score has its only owner here: a ratio without a denominator is nan. A score that joins
prediction and truth is nan where both are empty, and 0 where one of them is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self, TypedDict

import numpy as np

from ..errors import DataError


def ratios(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return ``part / whole`` element by element, nan where ``whole`` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``, nan where ``whole`` is 0."""
    return float(part) / float(whole) if whole else float("nan")


def f1_of_counts(hits_prediction: float, prediction: float, hits_truth: float, truth: float) -> float:
    """Return the harmonic mean of ``hits_prediction / prediction`` and ``hits_truth / truth``.

    Args:
        hits_prediction: how much of the prediction is matched by the truth; pixels, or a length.
        prediction: how much is predicted.
        hits_truth: how much of the truth is matched by the prediction.
        truth: how much there is.

    Returns:
        the F1 score; nan where both prediction and truth are 0, 0 where one of them is or nothing is matched.
    """
    if not prediction and not truth:
        return float("nan")
    if not hits_prediction or not hits_truth:
        return 0.0
    precision, recall = ratio(hits_prediction, prediction), ratio(hits_truth, truth)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True, eq=False)
class Counts:
    """Base of what is counted in an image: ``+`` and `sum` add counts up field by field, over images or processes."""

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
        matched_prediction: predicted pixels that are matched.
        prediction: predicted pixels.
        matched_truth: true pixels that are matched.
        truth: true pixels.
    """

    matched_prediction: int
    prediction: int
    matched_truth: int
    truth: int

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
        """Harmonic mean of both; nan where prediction and truth are empty, 0 where one of them is."""
        return f1_of_counts(self.matched_prediction, self.prediction, self.matched_truth, self.truth)


def only_valid(valid: np.ndarray | None, *masks: np.ndarray) -> list[np.ndarray]:
    """Return each mask (H, W) without its ignored pixels.

    Args:
        valid: (H, W) bool, False where pixels are ignored; None counts them all.
        masks: (H, W) bool each.

    Raises:
        ValueError: an array is not bool, or they differ in shape.
    """
    arrays = [*masks] if valid is None else [*masks, valid]
    if any(array.dtype != bool or array.shape != masks[0].shape or array.ndim != 2 for array in arrays):
        raise ValueError(f"masks must be bool and of one shape, not {[(str(a.dtype), a.shape) for a in arrays]}")
    return [*masks] if valid is None else [mask & valid for mask in masks]


# -- metrics.region
# Scores of label maps pixel by pixel: IoU, F1, precision, recall, accuracy.


class RegionScores(TypedDict):
    """Scores per class (C,), of all pixels, and means over the classes that have a score (nan where none has)."""

    IoU: np.ndarray
    F1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    accuracy: np.ndarray
    aAcc: float
    mIoU: float
    mF1: float


def confusion(prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        prediction: class indices (H, W), integers.
        truth: class indices (H, W), integers.
        num_classes: number C of classes.
        ignore_index: label of true pixels that count nowhere.

    Returns:
        (C, C) int64, true classes along the rows, predicted ones along the columns; sums over images are the counts
        of a data set.

    Raises:
        DataError: a label that counts is no class.
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


def region_scores(confusion: np.ndarray) -> RegionScores:
    """Return the scores of a confusion matrix, as MMSegmentation 0.30 defines them.

    ``accuracy`` is what MMSegmentation calls Acc, the recall of a class; ``aAcc`` the share of all pixels that are
    right. F1 is that of mDice, which is 0 for a class that is only predicted or only true; mFscore calls it nan.

    Args:
        confusion: (C, C) pixels of an image or a data set, as `confusion` counts them.
    """
    hits, truth, prediction = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    iou, f1 = ratios(hits, truth + prediction - hits), ratios(2 * hits, truth + prediction)
    recall = ratios(hits, truth)
    return {
        "IoU": iou,
        "F1": f1,
        "precision": ratios(hits, prediction),
        "recall": recall,
        "accuracy": recall,
        "aAcc": ratio(hits.sum(), truth.sum()),
        "mIoU": ratio(np.nansum(iou), np.isfinite(iou).sum()),
        "mF1": ratio(np.nansum(f1), np.isfinite(f1).sum()),
    }
