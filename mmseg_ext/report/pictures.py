"""What pages of pictures share: fitting to a size, the hatching of ignored pixels, pictures inside HTML."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from PIL import Image

from ..writing import complete_file

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
