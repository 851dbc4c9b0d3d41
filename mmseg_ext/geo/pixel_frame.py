"""From the pixels of a raster to its map, and to metres."""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np

from ..errors import DataError
from .metric import metric_of
from .raster import RasterInfo
from .vector import reprojected

logger = logging.getLogger(__name__)


class PixelFrame:
    """Where the pixels of a raster are.

    Points in pixels are (x, y), x the column and y the row, whole numbers at pixel centres. A raster without
    georeference has a map in pixels too, x as it is and y upwards, as GIS show it.

    Attributes:
        crs: of the map, None without one.
        unit: ``m``, or ``px`` where nothing is known of the ground.

    Args:
        info: header of the raster.

    Raises:
        DataError: its transform maps all pixels onto a line, or its place is none of its coordinate reference system.
    """

    def __init__(self, info: RasterInfo) -> None:
        self.crs = info.crs if info.transform is not None else None
        self.unit = "px" if info.transform is None else "m"
        self._transform = info.transform or (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
        self._centre = np.array([[info.width / 2, info.height / 2]])
        a, b, _, d, e, _ = self._transform
        if a * e - b * d == 0:
            raise DataError(f"{info.path}: its georeference is degenerate; give it another")
        if info.transform is None:
            logger.warning("%s: has no georeference; lengths and places are in pixels", info.path)
        elif self.crs is None:
            logger.warning("%s: has no coordinate reference system; its units are taken for metres", info.path)
        self._metric = metric_of(self.crs, self.to_map(self._centre)[0], info.path)

    def to_map(self, xy_px: np.ndarray) -> np.ndarray:
        """Return points (N, 2) in map coordinates."""
        a, b, c, d, e, f = self._transform
        x, y = xy_px.T + 0.5
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def to_metres(self, xy_px: np.ndarray) -> np.ndarray:
        """Return points (N, 2) in metres on the ground, where `metric_of` says."""
        points = self.to_map(xy_px)
        if self._metric.crs != self.crs and self.crs is not None and self._metric.crs is not None:
            (points,) = reprojected([points], self.crs, self._metric.crs)
        return points * self._metric.unit_m

    def pixel_area(self, xy_px: np.ndarray) -> np.ndarray:
        """Return the area (N,) of the pixels around points (N, 2), in square metres."""
        right, down = (self.to_metres(xy_px + step) - self.to_metres(xy_px - step) for step in ([0.5, 0], [0, 0.5]))
        return np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0])

    @cached_property
    def pixel_size(self) -> float:
        """Metres per pixel in the middle of the raster, the geometric mean of both directions."""
        return float(np.sqrt(self.pixel_area(self._centre)[0]))
