"""What probabilities of road are worth: thresholds, calibration, and where to look for errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from .region import Counts, only_valid, ratio, ratios

BINS = 300
"""Equal bins of [0, 1]: every whole per cent is an edge, 0.5 too, and 10, 12, 15, 20 or 25 coarser bins fit."""


@dataclass(frozen=True, eq=False)
class ProbabilityCounts(Counts):
    """Pixels by truth and probability, from which all else here is made; ``+`` adds images up.

    Bin k holds probabilities from k / `BINS` to below (k + 1) / `BINS`, the last one also 1. Whatever is computed of
    the counts is exact for thresholds at these edges; inside a bin, pixels count as equally certain.

    Attributes:
        pixels: (2, BINS) int64, first the pixels that are no road, then the road.
        probability_sums: (BINS,) float64, sum of the probabilities in each bin.
    """

    pixels: np.ndarray
    probability_sums: np.ndarray


class PrecisionRecallCurve(NamedTuple):
    """Scores where road is what has at least a probability, (BINS,) each, by rising threshold; nan as in `ratios`."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    iou: np.ndarray


class CalibrationCurve(NamedTuple):
    """Bins of like probability that hold a pixel, at most as many as asked for, by rising probability."""

    mean_probability: np.ndarray
    road_share: np.ndarray
    pixels: np.ndarray


def probability_counts(
    probability: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> ProbabilityCounts:
    """Count the pixels of an image by truth and probability.

    Args:
        probability: probability of road (H, W), floats from 0 to 1.
        truth: road pixels (H, W) bool.
        valid: (H, W) bool, False where pixels are ignored, whatever their probability.

    Raises:
        DataError: a probability that counts is not between 0 and 1.
        ValueError: the shapes differ, or probabilities are no floats.
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
                "divide scores by their largest value, and mend what is no number"
            )
    # edges in the probabilities' own precision: 0.29 in float32 is at least 0.29, as in a comparison of arrays
    inner_edges = (np.arange(1, BINS) / BINS).astype(probability.dtype)
    bins = [np.searchsorted(inner_edges, part, side="right") for part in counted]
    return ProbabilityCounts(
        pixels=np.stack([np.bincount(each, minlength=BINS) for each in bins]),
        probability_sums=np.bincount(np.concatenate(bins), np.concatenate(counted), minlength=BINS),
    )


def precision_recall_curve(counts: ProbabilityCounts) -> PrecisionRecallCurve:
    """Return precision, recall, F1 and IoU of the road at each lower edge of a bin as threshold, 0 among them."""
    false_hits, hits = counts.pixels[:, ::-1].cumsum(axis=1)[:, ::-1]
    prediction, truth = hits + false_hits, counts.pixels[1].sum()
    return PrecisionRecallCurve(
        thresholds=np.arange(BINS) / BINS,
        precision=ratios(hits, prediction),
        recall=ratios(hits, truth),
        f1=ratios(2 * hits, prediction + truth),
        iou=ratios(hits, prediction + truth - hits),
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

    Args:
        counts: of an image or a data set.
        bins: number of bins, a divisor of `BINS`.

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

    Args:
        counts: of an image or a data set.
        bins: number of bins, a divisor of `BINS`.
    """
    probability, share, pixels = calibration_curve(counts, bins)
    return ratio((pixels * np.abs(share - probability)).sum(), pixels.sum())


def error_found(counts: ProbabilityCounts, share: float = 0.1, threshold: float = 0.5) -> float:
    """Return which part of the wrong pixels lies among the ``share`` of pixels that are least certain.

    That is how much of the error a person finds who looks only there. Pixels are looked at by falling binary entropy,
    that is by rising |p - 0.5|, two bins as far from 0.5 at a time; the last ones are shared out proportionally.

    Args:
        counts: of an image or a data set.
        share: part of the pixels to look at, 0 to 1.
        threshold: road is what has at least this probability; the lower edge of a bin, such as a whole per cent.

    Returns:
        0 to 1; nan where no pixel is wrong.

    Raises:
        ConfigError: ``threshold`` is no lower edge of a bin.
    """
    edge = round(threshold * BINS)
    if not 0 <= edge < BINS or abs(edge - threshold * BINS) > 1e-6:
        raise ConfigError(
            f"threshold {threshold} is no multiple of 1/{BINS} from 0 to below 1; give a whole per cent, such as 0.35"
        )
    wrong = np.concatenate([counts.pixels[1, :edge], counts.pixels[0, edge:]])
    # ring r: the r-th bins below and above 0.5
    wrong_by_ring, pixels_by_ring = (
        each[: BINS // 2][::-1] + each[BINS // 2 :] for each in (wrong, counts.pixels.sum(axis=0))
    )
    before = pixels_by_ring.cumsum() - pixels_by_ring
    looked_at = np.clip(share * pixels_by_ring.sum() - before, 0, pixels_by_ring)
    return ratio(np.nansum(wrong_by_ring * ratios(looked_at, pixels_by_ring)), wrong.sum())


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the binary entropy in bits of ``probability`` (H, W), floats from 0 to 1: 1 at 0.5, 0 at 0 and at 1."""
    tiny = np.finfo(probability.dtype).tiny
    rest = 1 - probability
    return -probability * np.log2(np.maximum(probability, tiny)) - rest * np.log2(np.maximum(rest, tiny))
