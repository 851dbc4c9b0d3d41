"""Pictures that put an image beside its truth and its prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

_BAR = 28
_GAP = 8


def _painted(image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], opacity: float) -> np.ndarray:
    """Return ``image`` with every labelled pixel but background (0) and ignore tinted in its class colour."""
    painted = image.astype(np.float32)
    for label, colour in enumerate(palette):
        if label:
            where = labels == label
            painted[where] = (1 - opacity) * painted[where] + opacity * np.asarray(colour, np.float32)
    return painted.round().astype(np.uint8)


def panel(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    palette: Sequence[Sequence[int]] = ((0, 0, 0), (128, 0, 0)),
    opacity: float = 0.6,
) -> np.ndarray:
    """Return image, truth and prediction side by side, each under its title: RGB uint8 (H', W', 3).

    Args:
        image: RGB uint8 (H, W, 3).
        prediction: labels (H, W).
        truth: labels (H, W); left out when None.
        palette: RGB colour of each class.
        opacity: of the tint, 0 to 1.
    """
    parts = [("image", image)]
    if truth is not None:
        parts.append(("truth", _painted(image, truth, palette, opacity)))
    parts.append(("prediction", _painted(image, prediction, palette, opacity)))
    height, width = image.shape[:2]
    sheet = np.full((height + _BAR, len(parts) * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, (title, picture) in enumerate(parts):
        left = i * (width + _GAP)
        sheet[_BAR:, left : left + width] = picture
        cv2.putText(sheet, title, (left + 6, _BAR - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def save_panel(
    path: str,
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    palette: Sequence[Sequence[int]] = ((0, 0, 0), (128, 0, 0)),
    opacity: float = 0.6,
) -> None:
    """Write `panel` of the same arguments into the file ``path`` (.png or .jpg)."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    cv2.imwrite(path, np.ascontiguousarray(panel(image, prediction, truth, palette, opacity)[:, :, ::-1]))
