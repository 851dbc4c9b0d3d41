"""How sure a network may be: the temperature and the threshold that validation images ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from ..errors import DataError
from ..metrics.pixels import expected_calibration_error, probability_counts
from ..runtime.facts import MapModel, predict_at_scales

_EVERY = 7  # a pixel tells little that its neighbours do not
_CERTAIN = 1e-6
_THRESHOLDS = np.arange(5, 96) / 100
_TEMPERATURES = 0.2, 5.0


@dataclass(frozen=True)
class Calibration:
    """What fits a network to validation images.

    Attributes:
        temperature: what the scores are to be divided by, so that 80 % means 80 %; Guo et al. 2017.
        threshold: the probability, after that, from which a pixel is road for the best IoU.
        iou: of road at the threshold, 0 to 1, pooled over all images.
        iou_half: likewise where the threshold is 0.5.
        error: expected calibration error of P(road), 0 to 1, before and after.
        images: number of images.
    """

    temperature: float
    threshold: float
    iou: float
    iou_half: float
    error: tuple[float, float]
    images: int


def _intersection_over_union(road: np.ndarray, truth: np.ndarray) -> float:
    return float((road & truth).sum() / max((road | truth).sum(), 1))


def calibrate(
    network: MapModel, images: Iterable[tuple[np.ndarray, np.ndarray]], scales: Sequence[float] | None = None
) -> Calibration:
    """Return the temperature with the least cross entropy, and the threshold with the best IoU after it.

    Both are for the mean over ``scales``, each of which is divided by the temperature.

    Args:
        network: of two classes.
        images: each as uint8 (H, W, B), as `ImageReading` reads it, and its labels (H, W), 255 to be ignored.
        scales: at which the network looks at an image; None: its own.

    Raises:
        DataError: there is no road in the images, or nothing else.
    """
    scales = network.facts.scales if scales is None else scales
    roads = network.facts.road_labels
    found, truths = [], []
    for image, labels in images:
        shown = [predict_at_scales(network, [image], (scale,))[0, roads].sum(axis=0) for scale in scales]
        valid = np.flatnonzero(labels.ravel() != 255)[::_EVERY]
        found.append(np.stack([road.ravel()[valid] for road in shown]))
        truths.append(np.isin(labels.ravel()[valid], roads))
    truth = np.concatenate(truths) if truths else np.zeros(0, bool)
    if truth.all() or not truth.any():
        raise DataError("the images to calibrate on show no road, or nothing else; give others")
    scores = logit(np.concatenate(found, axis=1).astype(np.float64).clip(_CERTAIN, 1 - _CERTAIN))

    def road(temperature: float) -> np.ndarray:
        return expit(scores / temperature).mean(axis=0)

    def cross_entropy(log_temperature: float) -> float:
        chance = road(np.exp(log_temperature))
        return float(-np.log(np.where(truth, chance, 1 - chance).clip(_CERTAIN)).mean())

    best = minimize_scalar(cross_entropy, bounds=np.log(_TEMPERATURES), method="bounded")
    temperature = float(np.exp(best.x))
    chance = road(temperature)
    ious = [_intersection_over_union(chance >= threshold, truth) for threshold in _THRESHOLDS]
    errors = [
        expected_calibration_error(probability_counts(road(t).astype(np.float32)[None], truth[None]))
        for t in (1.0, temperature)
    ]
    return Calibration(
        temperature,
        float(_THRESHOLDS[int(np.argmax(ious))]),
        max(ious),
        _intersection_over_union(chance >= 0.5, truth),
        (errors[0], errors[1]),
        len(truths),
    )
