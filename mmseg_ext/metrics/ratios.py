"""Counts that add up over images, and the ratios made of them.

The convention for nothing to score has its only owner here: a ratio without a denominator is nan. A score that joins
prediction and truth is nan where both are empty, and 0 where one of them is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np


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
