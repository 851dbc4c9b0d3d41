"""Lines through heights that outliers do not move."""

from __future__ import annotations

import numpy as np

_NEAR_M = 0.3  # what is so near to a line is no outlier
_FITS = 4096  # lines fitted at a time


def fitted_lines(offsets: np.ndarray, heights: np.ndarray, needed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes (N,), and heights (N,) at offset 0, of lines through rows of heights that outliers do not move.

    The line by repeated medians tells the outliers; that by least squares through the others is the result, for it
    is less sensitive to noise and where the slope changes.

    Args:
        offsets: places (K,) of the heights.
        heights: (N, K), nan where unknown.
        needed: with less known heights a row has no line; more than half of K when None.
    """
    needed = len(offsets) // 2 + 1 if needed is None else needed
    apart = offsets[:, None] - offsets
    np.fill_diagonal(apart, np.nan)
    fits = [np.empty((2, 0))]
    for start in range(0, len(heights), _FITS):
        part = heights[start : start + _FITS]
        slope = median(median((part[:, :, None] - part[:, None]) / apart))
        slope[np.isfinite(part).sum(axis=1) < needed] = np.nan
        level = part - slope[:, None] * offsets
        away = np.abs(level - median(level)[:, None])
        inliers = away <= np.maximum(_NEAR_M, 3 * 1.4826 * median(away))[:, None]  # 3 standard deviations
        fits.append(_least_squares(offsets, np.where(inliers, part, np.nan)))
    slopes, middles = np.concatenate(fits, axis=1)
    return slopes, middles


def _least_squares(offsets: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return slopes and heights at offset 0 (2, N) of lines through rows (N, K), nan left out."""
    known = np.isfinite(heights)
    with np.errstate(invalid="ignore"):  # of rows where nothing is known
        count = known.sum(axis=1)
        x, z = (known * offsets).sum(axis=1) / count, np.nansum(heights, axis=1) / count
        from_x = known * (offsets - x[:, None])
        slope = np.nansum(from_x * heights, axis=1) / (from_x**2).sum(axis=1)
    return np.stack([slope, z - slope * x])


def median(values: np.ndarray) -> np.ndarray:
    """Return the medians over the last axis, nan left out; NumPy's own takes ten times as long."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    low, high = (np.take_along_axis(ordered, at.clip(min=0), -1)[..., 0] for at in ((count - 1) // 2, count // 2))
    return np.where(count[..., 0] > 0, (low + high) / 2, np.nan)
