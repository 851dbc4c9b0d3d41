"""Whether two rasters lie on the same ground."""

from __future__ import annotations

import math

from .raster import RasterInfo, Transform, rasterio_module

TOLERANCE_PX = 0.5
_METRES_PER_DEGREE = 111_320.0


def _map_xy(transform: Transform, column: float, row: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def disagreement(image: RasterInfo, mask: RasterInfo, tolerance_px: float = TOLERANCE_PX) -> str | None:
    """Return how the georeference of ``mask`` differs from its image's, None where it does not.

    Rasters without a georeference cannot disagree.

    Args:
        image: header of the image.
        mask: header of the mask, of the same rows and columns.
        tolerance_px: largest distance of corresponding corners, in pixels of the image.
    """
    if image.transform is None or mask.transform is None:
        return None
    if image.crs and mask.crs and image.crs != mask.crs:
        return f"the mask is in {mask.crs[:40]}, the image in {image.crs[:40]}"
    a, b, _, d, e, _ = image.transform
    determinant = a * e - b * d
    if determinant == 0:
        return "the image's georeference is degenerate"
    shifts = []
    for column, row in ((0, 0), (image.width, 0), (0, image.height), (image.width, image.height)):
        here, there = _map_xy(image.transform, column, row), _map_xy(mask.transform, column, row)
        dx, dy = there[0] - here[0], there[1] - here[1]
        shifts.append(((e * dx - b * dy) / determinant, (a * dy - d * dx) / determinant))
    if max(abs(value) for shift in shifts for value in shift) <= tolerance_px:
        return None
    right, down = (round(value, 1) + 0.0 for value in shifts[0])
    if max(abs(s[0] - right) + abs(s[1] - down) for s in shifts) <= 2 * tolerance_px:
        return f"the mask lies {right:+.1f} px right and {down:+.1f} px down of its image"
    return "the mask has another pixel size or rotation than its image"


def ground_sampling_distance(info: RasterInfo) -> float | None:
    """Return metres per pixel of a raster, the geometric mean of both directions; None without a georeference.

    Args:
        info: its header. Degrees are turned into metres at its upper left corner, other units as they are defined.
    """
    if info.transform is None or info.crs is None:
        return None
    a, b, _, d, e, north = info.transform
    x, y = math.hypot(a, d), math.hypot(b, e)
    crs = rasterio_module().crs.CRS.from_user_input(info.crs)
    if crs.is_geographic:
        x, y = x * _METRES_PER_DEGREE * math.cos(math.radians(north)), y * _METRES_PER_DEGREE
    else:
        metres = crs.units_factor[1]
        x, y = x * metres, y * metres
    return math.sqrt(x * y)
