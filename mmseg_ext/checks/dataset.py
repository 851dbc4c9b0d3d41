"""What must hold for a data set before anything is trained or measured on it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..datasets import RoadDataset
from ..datasets.pipelines import check_labels, check_same_size, read_mask
from ..datasets.pipelines.load_road_mask import CONVERT_HINT
from ..errors import DataError

logger = logging.getLogger(__name__)
_THREADS = 8


def _check_pair(dataset: RoadDataset, index: int) -> np.ndarray:
    """Return which labels the mask of image ``index`` holds (256 flags)."""
    image_path, mask_path = dataset.image_path(index), dataset.mask_path(index)
    try:
        with Image.open(image_path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError):
        raise DataError(f"{image_path}: cannot be read as an image; replace it or take it out of the split") from None
    mask = read_mask(mask_path)
    check_same_size(mask.shape, (height, width), mask_path, image_path)
    check_labels(mask, len(dataset.CLASSES), dataset.ignore_index, mask_path)
    return np.bincount(mask.ravel(), minlength=256) > 0


def check_dataset(dataset: RoadDataset) -> None:
    """Read every mask and every image's header once and refuse what would spoil a run.

    Raises:
        DataError: an unreadable file, a mask of another size, labels that are no class, or masks whose road
            is written as the ignore label.
    """
    if not isinstance(dataset, RoadDataset) or dataset.ann_dir is None:
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda index: _check_pair(dataset, index), range(len(dataset)))
        shown = tqdm(found, desc="checking masks", total=len(dataset), unit="mask", disable=None, leave=False)
        present = np.zeros(256, bool)
        for labels in shown:
            present |= labels
    if present[dataset.ignore_index] and not present[1 : len(dataset.CLASSES)].any():
        raise DataError(
            f"{dataset.ann_dir}: the masks of {dataset.split} hold 0 and {dataset.ignore_index} but no class above 0, "
            f"so every road would be ignored; {CONVERT_HINT}"
        )
    logger.info("%s: %d pairs checked", dataset.split, len(dataset))
