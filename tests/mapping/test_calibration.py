"""Temperature and threshold: whether they undo what was done to probabilities that were right."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit

from mmseg_ext.errors import DataError
from mmseg_ext.mapping.calibration import calibrate


class Sharpened:
    """Gives as probability what the image shows, its scores times a factor."""

    def __init__(self, factor):
        self.factor = factor
        self.facts = SimpleNamespace(road_labels=[1], scales=(1.0,))

    def predict(self, images):
        road = expit(self.factor * logit(np.stack(images)[..., 0] / 256.0 + 1 / 512))
        return np.stack([1 - road, road], axis=1).astype(np.float32)


def images(count=6, side=200, seed=0):
    """Pixels whose values are the true chances of road."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        values = rng.integers(0, 256, (side, side, 1), np.uint8)
        yield values, (rng.random((side, side)) < values[..., 0] / 256 + 1 / 512).astype(np.uint8)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_sharpened_the_scores(factor):
    found = calibrate(Sharpened(factor), images())
    assert found.temperature == pytest.approx(factor, rel=0.04)
    assert found.error[1] < 0.015
    if factor != 1:
        assert found.error[0] > 0.05
    # chances are spread evenly: of all pixels, half are road, 1 - t are called so, (1 - t^2) / 2 are both
    thresholds = np.linspace(0.05, 0.95, 901)
    expected = ((1 - thresholds**2) / 2) / (0.5 + (1 - thresholds) - (1 - thresholds**2) / 2)
    assert found.threshold == pytest.approx(thresholds[expected.argmax()], abs=0.06)
    assert found.iou == pytest.approx(expected.max(), abs=0.02) and found.iou > found.iou_half
    assert found.images == 6


def test_what_is_to_be_ignored_changes_nothing():
    plain = calibrate(Sharpened(2.0), images())
    wrong = []
    for image, labels in images():
        doubled = np.concatenate([image, np.full_like(image, 255)]), np.concatenate([labels, np.full_like(labels, 255)])
        wrong.append(doubled)
    assert calibrate(Sharpened(2.0), wrong) == plain


def test_images_without_road_are_refused():
    with pytest.raises(DataError, match="show no road, or nothing else"):
        calibrate(Sharpened(1.0), [(image, np.zeros_like(labels)) for image, labels in images(2)])
    with pytest.raises(DataError, match="show no road, or nothing else"):
        calibrate(Sharpened(1.0), [])
