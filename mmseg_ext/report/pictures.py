"""What pages of pictures share: fitting to a size, the hatching of ignored pixels, pictures inside HTML."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ..files import complete_file

HATCH_CSS = "repeating-linear-gradient(135deg, #5f5f5f 0 3px, #e1e1e1 3px 6px)"
_HATCH_GREYS = (225, 95)


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
        Image.fromarray(picture).save(partial, "PNG", optimize=True)


def data_url(data: bytes, media_type: str) -> str:
    """Return ``data`` as an address that holds all of it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def picture_url(picture: np.ndarray) -> str:
    """Return ``picture``, RGB uint8 (H, W, 3), as a `data_url`."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=88, subsampling=0)  # full colour: thin lines keep theirs
    return data_url(data.getvalue(), "image/jpeg")


# -- report.panel
# Pictures that put an image beside its truth and its prediction.

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
