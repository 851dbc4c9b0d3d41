"""Scores of label maps pixel by pixel: IoU, F1, precision, recall, accuracy."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from ..errors import DataError
from .ratios import ratio, ratios


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
