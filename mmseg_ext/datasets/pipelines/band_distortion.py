"""MMSegmentation's PhotoMetricDistortion for any number of bands, by lookup tables."""

from __future__ import annotations

import cv2
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import PhotoMetricDistortion

_draw = np.random  # the generator that MMSegmentation draws from, seeded in every worker
_VALUES = np.arange(256, dtype=np.uint8)


def _with_hsv_changed(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Return a BGR image (H, W, 3) after looking up one channel of its HSV form in ``table`` (256,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@PIPELINES.register_module()
class BandDistortion(PhotoMetricDistortion):
    """Random brightness and contrast, the same for all bands; with three (BGR), random saturation and hue too.

    For images of three bands the result is that of ``PhotoMetricDistortion``, bit for bit, for the same state of
    NumPy's generator. Its arguments are taken as they are; images are uint8 (H, W, B).
    """

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Return ``img * alpha + beta``, cut to 0-255, uint8 (H, W, B)."""
        return cv2.LUT(img, super().convert(_VALUES, alpha, beta)).reshape(img.shape)

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Return ``img`` (H, W, B) with another saturation, if it has colours."""
        if img.shape[2] == 3 and _draw.randint(2):
            alpha = _draw.uniform(self.saturation_lower, self.saturation_upper)
            img = _with_hsv_changed(img, 1, super().convert(_VALUES, alpha=alpha))
        return img

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Return ``img`` (H, W, B) with another hue, if it has colours."""
        if img.shape[2] == 3 and _draw.randint(2):
            turn = _draw.randint(-self.hue_delta, self.hue_delta)
            img = _with_hsv_changed(img, 0, ((_VALUES.astype(int) + turn) % 180).astype(np.uint8))
        return img
