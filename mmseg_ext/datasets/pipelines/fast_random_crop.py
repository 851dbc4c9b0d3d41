"""MMSegmentation's RandomCrop, bit for bit, in a fraction of its time."""

from __future__ import annotations

import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import RandomCrop

_TRIES = 10  # RandomCrop's
_FEW_LABELS = 16


def _label_counts(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return how many pixels of ``labels`` (H, W) each label but ``ignore_index`` has, in the labels' order."""
    counts: list[int] = []
    rest = labels.size - np.count_nonzero(labels == ignore_index)
    for label in range(_FEW_LABELS):  # a comparison costs a thirtieth of sorting the pixels
        if rest == 0:
            return np.array(counts, dtype=np.int64)
        count = int(np.count_nonzero(labels == label)) if label != ignore_index else 0
        if count:
            counts.append(count)
        rest -= count
    values, sizes = np.unique(labels, return_counts=True)
    return sizes[values != ignore_index]


@PIPELINES.register_module()
class FastRandomCrop(RandomCrop):
    """Cuts what ``RandomCrop`` cuts for the same state of NumPy's generator, and leaves the same state behind.

    ``RandomCrop`` sorts the pixels of up to ten crops to count their labels, which takes more time than all other
    steps of the paper's pipeline together; here they are compared.
    """

    def _is_mixed(self, labels: np.ndarray) -> bool:
        """Return whether ``labels`` (H, W) hold two classes or more, of which none has too large a share."""
        counts = _label_counts(labels, self.ignore_index)
        return len(counts) > 1 and bool(counts.max() / counts.sum() < self.cat_max_ratio)

    def __call__(self, results: dict) -> dict:
        """Crop the image and the masks."""
        window = self.get_crop_bbox(results["img"])
        if self.cat_max_ratio < 1:
            for _ in range(_TRIES):
                if self._is_mixed(self.crop(results["gt_semantic_seg"], window)):
                    break
                window = self.get_crop_bbox(results["img"])
        for key in ("img", *results.get("seg_fields", [])):
            results[key] = self.crop(results[key], window)
        results["img_shape"] = results["img"].shape
        return results
