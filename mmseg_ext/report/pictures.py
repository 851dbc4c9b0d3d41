"""Pictures: fitting to a size, tinted classes, hatched ignored pixels, panels, pictures inside HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ..files import complete_file

HATCH_CSS = "repeating-linear-gradient(135deg, #5f5f5f 0 3px, #e1e1e1 3px 6px)"
_HATCH_GREYS = (225, 95)
_TITLE_PX = 28
_GAP_PX = 8


def fitted(array: np.ndarray, longest: int) -> np.ndarray:
    """Return ``array`` (H, W, ...) with ``longest`` pixels on its longer side; smaller by the means of areas."""
    height, width = array.shape[:2]
    scale = longest / max(height, width)
    if scale == 1:
        return array
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)


def hatch(picture: np.ndarray, ignored: np.ndarray) -> None:
    """Hatch ``picture`` (h, w, 3) in grey, in place, where most of ``ignored`` (H, W) is true."""
    height, width = picture.shape[:2]
    stripe = ((np.arange(height)[:, None] + np.arange(width)) // 4 % 2).astype(bool)
    where = fitted(ignored.astype(np.float32), max(height, width)) >= 0.5
    picture[where & stripe], picture[where & ~stripe] = _HATCH_GREYS


def save_picture(path: str, picture: np.ndarray) -> None:
    """Write ``picture``, RGB uint8 (H, W, 3), as PNG; it appears complete or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with complete_file(path) as partial:
        Image.fromarray(picture).save(partial, "PNG")


def data_url(data: bytes, media_type: str) -> str:
    """Return ``data`` as an address that holds all of it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def picture_url(picture: np.ndarray) -> str:
    """Return ``picture``, RGB uint8 (H, W, 3), as a `data_url`."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=88, subsampling=0)  # full colour: thin lines keep theirs
    return data_url(data.getvalue(), "image/jpeg")


def paint_labels(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Sequence[int]],
    ignore_index: int | None = 255,
    longest: int = 0,
    opacity: float = 0.5,
) -> np.ndarray:
    """Return ``image`` with every class but 0 tinted in its colour and ignored pixels hatched in grey.

    Args:
        image: RGB uint8 (H, W, 3).
        labels: class indices and ``ignore_index`` (H, W).
        palette: RGB colour (0-255) of each class.
        ignore_index: label of ignored pixels; None hatches nothing.
        longest: longest side of the result in pixels; 0 keeps the image's size.
        opacity: of the tint, 0 to 1.

    Returns:
        RGB uint8. Where it is smaller than ``image``, a tint is as strong as the class's share of the pixel, so
        that thin lines are not lost.

    Raises:
        ValueError: image and labels differ in size.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels of shape {labels.shape} do not fit an image of shape {image.shape}")
    longest = longest or max(image.shape[:2])
    painted = fitted(image, longest).astype(np.float32)
    for label, colour in enumerate(palette):
        if label:
            share = fitted((labels == label).astype(np.float32), longest)[..., None] * opacity
            painted += share * (np.asarray(colour, np.float32) - painted)
    if ignore_index is not None:
        hatch(painted, labels == ignore_index)
    return painted.round().astype(np.uint8)


def panel(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    palette: Sequence[Sequence[int]] = ((0, 0, 0), (128, 0, 0)),
    opacity: float = 0.6,
) -> np.ndarray:
    """Return image, truth (left out when None) and prediction side by side, each under its title: RGB uint8.

    Labels (H, W) tint the image as in `paint_labels`, which says what the arguments are.
    """
    parts = [("image", image)]
    for title, labels in (("truth", truth), ("prediction", prediction)):
        if labels is not None:
            parts.append((title, paint_labels(image, labels, palette, None, opacity=opacity)))
    height, width = image.shape[:2]
    sheet = np.full((height + _TITLE_PX, len(parts) * (width + _GAP_PX) - _GAP_PX, 3), 255, np.uint8)
    for i, (title, picture) in enumerate(parts):
        left = i * (width + _GAP_PX)
        sheet[_TITLE_PX:, left : left + width] = picture
        cv2.putText(sheet, title, (left + 6, _TITLE_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet
