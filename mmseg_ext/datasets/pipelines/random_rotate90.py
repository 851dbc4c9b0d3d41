"""Pipeline step that turns by right angles."""

from __future__ import annotations

import numpy as np
from mmseg.datasets.builder import PIPELINES


@PIPELINES.register_module()
class RandomRotate90:
    """Turns image and masks by 0, 90, 180 or 270 degrees, each as likely; no pixel changes its value.

    From above there is no up and down, so that turned images are as good as new ones.
    """

    def __call__(self, results: dict) -> dict:
        """Turn ``img`` and every field of ``seg_fields``."""
        turns = int(np.random.randint(4))  # noqa: NPY002  the generator that MMSegmentation draws from
        for key in ("img", *results.get("seg_fields", [])):
            results[key] = np.ascontiguousarray(np.rot90(results[key], turns))
        results["img_shape"] = results["pad_shape"] = results["img"].shape
        return results
