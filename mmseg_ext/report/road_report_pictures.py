"""The pictures of a road report: one example's truth, errors, road graph and entropy, all as RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .contact_sheet import paint_labels
from .pictures import fitted, hatch

HIT, MISSED, FALSE, NEAR, IGNORED = 1, 2, 3, 4, 255
# told apart by the colour-blind: Okabe and Ito, "Color Universal Design", 2008
ERROR_COLOURS = {HIT: (0, 158, 115), MISSED: (0, 114, 178), FALSE: (213, 94, 0), NEAR: (240, 228, 66)}
TRUTH_COLOUR, PREDICTED_COLOUR, GAP_COLOUR = ERROR_COLOURS[MISSED], ERROR_COLOURS[FALSE], (0, 0, 0)
_CONTRAST = 0.45
_GAP_RADIUS_PX = 7
_SUBPIXEL_BITS = 4


def error_classes(
    truth: np.ndarray, prediction: np.ndarray, tolerance_px: float, valid: np.ndarray | None = None
) -> np.ndarray:
    """Return what became of every pixel: uint8 (H, W).

    Args:
        truth: road, bool (H, W).
        prediction: road, bool (H, W).
        tolerance_px: Euclidean distance of pixel centres within which road of one mask lies near that of the other.
        valid: bool (H, W), false where pixels count nowhere; None: all count.

    Returns:
        0 for background, `HIT` (road in both), `NEAR` (road in one, within the tolerance of the other), else `MISSED`
        (only true) or `FALSE` (only predicted), and `IGNORED`.
    """
    counts = np.ones(truth.shape, bool) if valid is None else valid
    truth, prediction = truth & counts, prediction & counts
    near = (truth & _within(prediction, tolerance_px)) | (prediction & _within(truth, tolerance_px))
    classes = np.zeros(truth.shape, np.uint8)
    classes[truth], classes[prediction], classes[near] = MISSED, FALSE, NEAR
    classes[truth & prediction], classes[~counts] = HIT, IGNORED
    return classes


def truth_picture(image: np.ndarray, truth: np.ndarray, valid: np.ndarray | None, longest: int) -> np.ndarray:
    """Return ``image`` (H, W, 3) with the roads of ``truth`` (H, W) tinted; ``longest`` pixels long."""
    labels = truth.astype(np.uint8)
    if valid is not None:
        labels[~valid] = IGNORED
    return paint_labels(image, labels, ((0, 0, 0), TRUTH_COLOUR), IGNORED, longest)


def error_picture(image: np.ndarray, classes: np.ndarray, longest: int) -> np.ndarray:
    """Return ``image`` (H, W, 3), dimmed, below the colours of `error_classes` (H, W); ``longest`` pixels long.

    A smaller pixel has the colour of the class with the largest share of it, as strong as the root of the road's
    share, so that thin roads stay visible and no mixture of two colours reads as a third.
    """
    shares = np.stack([fitted((classes == kind).astype(np.float32), longest) for kind in ERROR_COLOURS])
    colours = np.array(list(ERROR_COLOURS.values()), np.float32)[shares.argmax(axis=0)]
    picture = _dimmed(image, longest)
    picture += np.sqrt(shares.sum(axis=0))[..., None] * (colours - picture)
    hatch(picture, classes == IGNORED)
    return _rounded(picture)


def graph_picture(
    image: np.ndarray,
    truth_lines: Sequence[np.ndarray],
    predicted_lines: Sequence[np.ndarray],
    gaps: Sequence[tuple[float, float]],
    longest: int,
) -> np.ndarray:
    """Return ``image`` (H, W, 3), dimmed, below the true and the predicted lines and circles around gaps.

    Lines (N, 2) and gaps are (x, y) in pixels of ``image``, integers at pixel centres; the picture is ``longest``
    pixels long, the thickness of what is drawn does not depend on the image's size.
    """
    picture = _rounded(_dimmed(image, longest))
    scale = np.array(picture.shape[1::-1]) / image.shape[1::-1]

    def placed(points: np.ndarray | tuple[float, float]) -> np.ndarray:
        return (((np.asarray(points) + 0.5) * scale - 0.5) * 2**_SUBPIXEL_BITS).round().astype(np.int32)

    for lines, colour, thickness in ((truth_lines, TRUTH_COLOUR, 8), (predicted_lines, PREDICTED_COLOUR, 3)):
        for line in lines:
            cv2.polylines(picture, [placed(line)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    for gap in gaps:
        x, y = placed(gap).tolist()
        radius = _GAP_RADIUS_PX * 2**_SUBPIXEL_BITS
        for colour, thickness in (((255, 255, 255), 5), (GAP_COLOUR, 2)):
            cv2.circle(picture, (x, y), radius, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return picture


def entropy_picture(entropy: np.ndarray, valid: np.ndarray | None, longest: int) -> np.ndarray:
    """Return ``entropy`` (H, W), 0 to 1, from dark blue to yellow; ``longest`` pixels long."""
    picture = entropy_colours(fitted(entropy.astype(np.float32), longest))
    if valid is not None:
        hatch(picture, ~valid)
    return picture


def entropy_colours(entropy: np.ndarray) -> np.ndarray:
    """Return the colours (h, w, 3) of ``entropy`` (h, w), 0 to 1."""
    return np.ascontiguousarray(cv2.applyColorMap(_rounded(255 * entropy), cv2.COLORMAP_CIVIDIS)[..., ::-1])


def _within(mask: np.ndarray, distance_px: float) -> np.ndarray:
    """Return where a pixel of ``mask`` (H, W) lies within the distance."""
    if not mask.any():
        return np.zeros(mask.shape, bool)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= distance_px


def _dimmed(image: np.ndarray, longest: int) -> np.ndarray:
    """Return ``image`` grey and pale: float32 (h, w, 3)."""
    grey = fitted(image, longest).mean(axis=2, dtype=np.float32, keepdims=True)
    return np.repeat(255 - _CONTRAST * (255 - grey), 3, axis=2)


def _rounded(picture: np.ndarray) -> np.ndarray:
    return picture.round().clip(0, 255).astype(np.uint8)
