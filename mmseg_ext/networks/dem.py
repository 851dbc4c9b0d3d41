"""Heights of a DEM or DSM, by windows, under the roads of any map."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pyproj

from ..errors import DataError
from ..geo import RasterSource, check_same_ground, height_unit_m, metric_of, raster_info, same_map
from ..geo.raster import rasterio

_TILE_PX = 512  # rows and columns of the DEM in memory at a time
_ON_EARTH = (-1000.0, 9000.0)  # metres; what is beyond, such as an undeclared -9999, is no height
logger = logging.getLogger(__name__)


class Dem(RasterSource):
    """A raster of heights, read by windows.

    Raises:
        DataError: unreadable, of several bands, without a georeference, or of heights in an unknown unit.
    """

    def __init__(self, path: str) -> None:
        info = raster_info(path)
        if info.bands != 1:
            raise DataError(f"{path}: has {info.bands} bands; give a DEM or DSM, which has one")
        if info.transform is None:
            raise DataError(f"{path}: has no georeference, so its heights cannot be placed; add one")
        transform = rasterio.Affine(*info.transform)
        if transform.is_degenerate:
            raise DataError(f"{path}: its georeference is degenerate; give it another")
        self._unit_m = height_unit_m(info)
        self._to_pixels = ~transform
        super().__init__(path)
        if self.room_for(_TILE_PX, _TILE_PX):
            self.make_room(self.info.height, 1)  # roads lead anywhere: all of it

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """Return points (N, 2) of its map in pixels (x, y), whole numbers at pixel centres."""
        with np.errstate(invalid="ignore"):  # places that its coordinate reference system does not have
            return np.stack(self._to_pixels @ (xy[:, 0], xy[:, 1]), axis=1) - 0.5

    def at(self, xy: np.ndarray) -> np.ndarray:
        """Return the heights (N,), metres, at points (N, 2) of its map; nan where a pixel around a point is unknown.

        Between pixels they are bilinear: to leave out only the unknown pixel would take the height from somewhere
        beside the point.
        """
        x, y = self.pixels(xy).T
        size = np.array([self.info.width, self.info.height])
        heights = np.full(len(xy), np.nan)
        inside = np.flatnonzero((x >= 0) & (y >= 0) & (x <= size[0] - 1) & (y <= size[1] - 1))
        points = np.stack([x, y], axis=1)[inside]
        low = np.minimum(points.astype(int), np.maximum(size - 2, 0))
        tiles, tile = np.unique(low // _TILE_PX, axis=0, return_inverse=True)
        for number in range(len(tiles)):
            here = tile.ravel() == number
            heights[inside[here]] = self._bilinear(points[here], low[here])
        return heights

    def _bilinear(self, points: np.ndarray, low: np.ndarray) -> np.ndarray:
        left, top = low.min(axis=0)
        right, bottom = np.minimum(low.max(axis=0) + 2, [self.info.width, self.info.height])
        values, valid = self.read(top, left, bottom - top, right - left)
        known = self.info.as_reals(values[:, :, 0].astype(float)) * self._unit_m
        with np.errstate(invalid="ignore"):
            known[~((known > _ON_EARTH[0]) & (known < _ON_EARTH[1]))] = np.nan
        if valid is not None:
            known[~valid] = np.nan
        column, row = (low - [left, top]).T
        share_x, share_y = (points - low).T
        total = np.zeros(len(points))
        for down, weight_y in ((0, 1 - share_y), (1, share_y)):
            for across, weight_x in ((0, 1 - share_x), (1, share_x)):
                weight = weight_x * weight_y
                at = np.minimum(row + down, bottom - top - 1), np.minimum(column + across, right - left - 1)
                total += np.where(weight > 0, weight * known[at], 0)
        return total


class Ground:
    """The ground around some roads: their map, metres on it, and the pixels of a DEM.

    Metres are those that `metric_of` says, as in the lengths of the network; ``points`` (N, 2) are places of the roads
    on their map. Where the roads or the DEM have no coordinate reference system, that of the other is assumed.

    Raises:
        DataError: the roads lie outside their coordinate reference system, have no way to the DEM's, or have none and
            the DEM's is not in metres.
    """

    def __init__(self, points: np.ndarray, crs: str | None, dem: Dem) -> None:
        self._dem, self._points = dem, points
        if (crs is None) != (dem.info.crs is None):
            logger.warning(
                "%s no coordinate reference system; that of the %s is assumed",
                *((f"{dem.info.path}: has", "roads") if crs else ("the roads have", "DEM")),
            )
        known = crs or dem.info.crs
        check_same_ground(dem.info.path, dem.info.crs or known, "the road network", known)
        metric, self._unit_m = metric_of(known, (points.min(axis=0) + points.max(axis=0)) / 2, "the road network")
        if crs is None and (metric, self._unit_m) != (known, 1.0):
            raise DataError(
                f"{dem.info.path}: its map is not in metres, as the roads, which have no coordinate reference system, "
                "are taken to be; give the roads their own"
            )
        self._map_to_metric = _transformation(known, metric)
        self._map_to_dem = _transformation(known, dem.info.crs)
        self._metric_to_dem = _transformation(metric, dem.info.crs)

    def metres(self, xy: np.ndarray) -> np.ndarray:
        """Return points (N, 2) of the map in metres."""
        return self._map_to_metric(xy) * self._unit_m

    def heights(self, xy: np.ndarray) -> np.ndarray:
        """Return the heights (N,) at points (N, 2) in metres, nan where they are unknown."""
        return self._dem.at(self._metric_to_dem(xy / self._unit_m))

    def dem_pixel_m(self, place: np.ndarray) -> float:
        """Return how many metres a pixel of the DEM has around a ``place`` (2,) in metres."""
        corner, right, up = self._dem.pixels(self._metric_to_dem((place + np.eye(3, 2, -1)) / self._unit_m))
        return float(1 / np.sqrt(abs(np.linalg.det([right - corner, up - corner]))))

    def check_overlap(self, name: str) -> None:
        """Raise a DataError if the bounds of the roads, called ``name``, are beside the DEM."""
        pixels = self._dem.pixels(self._map_to_dem(self._points))
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if not ((high >= 0) & (low <= [self._dem.info.width - 1, self._dem.info.height - 1])).all():
            raise DataError(
                f"{self._dem.info.path}: does not overlap {name}, which would be at its columns {low[0]:.0f} to "
                f"{high[0]:.0f} of {self._dem.info.width} and rows {low[1]:.0f} to {high[1]:.0f} of "
                f"{self._dem.info.height}; give the DEM of the same place, or correct its georeference"
            )


def _transformation(source: str | None, target: str | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that takes points (N, 2) from one coordinate reference system to another.

    Without one of them the points are as they are.
    """
    if source is None or target is None or same_map(source, target):
        return lambda xy: xy
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return lambda xy: np.stack(transformer.transform(xy[:, 0], xy[:, 1]), axis=1)
