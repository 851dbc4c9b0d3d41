"""Predictions of an evaluation as files."""

from __future__ import annotations

import os

import numpy as np
from mmseg.datasets.custom import CustomDataset
from PIL import Image

from ..errors import ConfigError
from ..report import save_panel
from .evaluation import Prediction


class PredictionWriter:
    """Writes each prediction as a label PNG, as a picture beside image and truth, or both.

    Args:
        mask_dir: folder for label PNGs; None for none.
        show_dir: folder for pictures; None for none.
        opacity: of the tint in the pictures, 0 to 1.

    Raises:
        ConfigError: a folder cannot be made.
    """

    def __init__(self, mask_dir: str | None, show_dir: str | None, opacity: float = 0.6) -> None:
        self.mask_dir, self.show_dir, self.opacity = mask_dir, show_dir, opacity
        for folder in filter(None, (mask_dir, show_dir)):
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from None

    def __call__(self, dataset: CustomDataset, found: Prediction) -> None:
        """Write what is said of one image."""
        index = found.index
        stem = os.path.splitext(dataset.img_infos[index]["filename"])[0]
        labels = np.asarray(found.labels, np.uint8)
        if self.mask_dir:
            picture = Image.fromarray(labels).convert("P")
            picture.putpalette(np.asarray(dataset.PALETTE, np.uint8).tobytes())
            picture.save(os.path.join(self.mask_dir, f"{stem}.png"))
        if self.show_dir:
            truth = dataset.get_gt_seg_map_by_idx(index) if dataset.ann_dir else None
            image = dataset.picture(index)
            path = os.path.join(self.show_dir, f"{stem}.png")
            save_panel(path, image, labels, truth, dataset.PALETTE, self.opacity)
