"""In which coordinate reference system a map is measured."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..errors import DataError, lazy_import
from .raster import rasterio_module
from .vector import metric_crs, reprojected

_PURPOSE = "measuring on maps"
_WGS84 = "EPSG:4326"
_TRUE = 0.005  # a UTM zone is within 0.001, and so are the maps of most states; Web Mercator is off by more everywhere
_STEP_M = 50.0


class Metric(NamedTuple):
    """Where lengths are measured.

    Attributes:
        crs: coordinate reference system to take points to, None where there is none.
        unit_m: metres in its unit.
    """

    crs: str | None
    unit_m: float


def metric_of(crs: str | None, place: np.ndarray, name: str) -> Metric:
    """Return where lengths around a place of a map are measured, the same for all that lies there.

    A map whose units are true lengths there is measured as it is, be they metres or feet; others, such as those in
    degrees or a web map, in the UTM zone of the place. A map whose place on Earth is unknown has the units that its
    coordinate reference system states; without one they are metres.

    Args:
        crs: of the map, as an authority code or WKT; None without one.
        place: point (2,) of the map.
        name: what lies there, for the message.

    Raises:
        DataError: the place is none of this coordinate reference system.
    """
    if crs is None:
        return Metric(None, 1.0)
    known = rasterio_module(_PURPOSE).crs.CRS.from_user_input(crs)
    unit_m = float(known.units_factor[1])
    if not (known.is_geographic or known.is_projected):
        return Metric(crs, unit_m)
    longitude, latitude = _longitude_latitude(crs, place)
    if not (abs(longitude) <= 360 and abs(latitude) <= 90):
        raise DataError(
            f"{name}: lies around {place[0]:g} {place[1]:g}, which is nowhere in {crs[:40]}; correct the coordinate "
            "reference system"
        )
    zone = metric_crs(_WGS84, (longitude, latitude))
    if known.is_projected:
        (here,) = reprojected([place[None]], crs, zone)
        (start, *ends) = reprojected([here + _STEP_M * np.eye(3, 2, -1)], zone, crs)[0]
        if np.abs(np.hypot(*(ends - start).T) * unit_m / _STEP_M - 1).max() < _TRUE:
            return Metric(crs, unit_m)
    return Metric(zone, 1.0)


def _longitude_latitude(crs: str, place: np.ndarray) -> tuple[float, float]:
    """Return degrees, nan where there are none."""
    warp = lazy_import("rasterio.warp", "geo", _PURPOSE)
    try:
        (longitude,), (latitude,) = warp.transform(crs, _WGS84, [place[0]], [place[1]])
    except Exception:  # rasterio has no public name for what GDAL raises where a projection ends
        return math.nan, math.nan
    return longitude, latitude
