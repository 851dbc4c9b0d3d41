"""What the pixels of an image boil down to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

THUMBNAIL_PX = 32
_MIN_TEXTURE = 2.0  # standard deviation in grey levels
_BLANK = 0.5


@dataclass(frozen=True)
class ImageLook:
    """What the pixels of an image, as a network sees it, boil down to.

    Attributes:
        histograms: valid pixels of each value, (B, 256).
        thumbnail: mean of the first three bands, float32 (32, 32), area-averaged.
        digest: of the pixels.
        road_on_nothing: share of the invalid pixels that are labelled above 0.
    """

    histograms: np.ndarray
    thumbnail: np.ndarray
    digest: bytes
    road_on_nothing: float

    @property
    def levels(self) -> int:
        """Number of values that occur, of the band with most."""
        return int((self.histograms > 0).sum(axis=1).max())

    @property
    def is_blank(self) -> bool:
        """Whether all valid pixels are of one colour, as far as JPEG lets them."""
        counts = self.histograms.sum(axis=1)
        if not counts.all():
            return True
        mean, mean_of_squares = (self.histograms @ np.arange(256.0) ** power / counts for power in (1, 2))
        return bool(np.sqrt(np.maximum(mean_of_squares - mean**2, 0)).max() < _BLANK)


def shows_something(image: np.ndarray, valid: np.ndarray | None, where: np.ndarray) -> bool:
    """Return whether an image uint8 (H, W, B) has texture at the valid pixels of ``where`` (H, W)."""
    seen = where if valid is None else where & valid
    return bool(seen.any() and image[seen].std(axis=0).max() > _MIN_TEXTURE)


def look_at(image: np.ndarray, valid: np.ndarray | None, labels: np.ndarray | None, ignore_index: int) -> ImageLook:
    """Return what is remembered of an image.

    Args:
        image: uint8 (H, W, B), as a network sees it.
        valid: bool (H, W), None for all.
        labels: of its mask, uint8; None, or of another size, where there are none to compare with.
        ignore_index: label that counts nowhere.
    """
    image = np.ascontiguousarray(image)
    where = None if valid is None else valid.astype(np.uint8)
    bands = [cv2.calcHist([image], [band], where, [256], [0, 256]).ravel() for band in range(image.shape[2])]
    small = cv2.resize(
        np.ascontiguousarray(image[:, :, :3]), (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA
    )
    on_nothing = 0.0
    if labels is not None and labels.shape == image.shape[:2] and valid is not None:
        on_nothing = float(((labels > 0) & (labels != ignore_index))[~valid].mean())
    return ImageLook(
        histograms=np.stack(bands).astype(np.int64),
        thumbnail=small.reshape(THUMBNAIL_PX, THUMBNAIL_PX, -1).mean(axis=2, dtype=np.float32),
        digest=hashlib.blake2b(image.data, digest_size=16).digest(),
        road_on_nothing=on_nothing,
    )
