"""MMSegmentation's RandomFlip, bit for bit, with contiguous results."""

from __future__ import annotations

import cv2
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import RandomFlip

_draw = np.random  # the generator that MMSegmentation draws from, seeded in every worker
_AXES = {"horizontal": 1, "vertical": 0, "diagonal": -1}


@PIPELINES.register_module()
class FastRandomFlip(RandomFlip):
    """Mirrors as ``RandomFlip`` does for the same state of NumPy's generator.

    ``RandomFlip`` leaves a view with negative strides, which every later step of OpenCV copies slowly.
    """

    def __call__(self, results: dict) -> dict:
        """Mirror the image and the masks, unless ``results['flip']`` says otherwise."""
        if "flip" not in results:
            results["flip"] = bool(_draw.rand() < self.prob)
        results.setdefault("flip_direction", self.direction)
        if results["flip"]:
            axis = _AXES[results["flip_direction"]]
            for key in ("img", *results.get("seg_fields", [])):
                results[key] = cv2.flip(results[key], axis).reshape(results[key].shape)
        return results
