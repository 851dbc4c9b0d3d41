"""What a metre is: where lengths are measured on a map, and the metres in its units, its pixels and its heights."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np

from ..errors import DataError, LazyModule
from .raster import RasterInfo, rasterio

_PURPOSE = "measuring on maps"
warp = LazyModule("rasterio.warp", None, _PURPOSE)
pyproj = LazyModule("pyproj", None, _PURPOSE)
_database = LazyModule("pyproj.database", None, _PURPOSE)

_WGS84 = "EPSG:4326"
_TRUE = 0.005  # a UTM zone is within 0.001, and so are the maps of most states; Web Mercator is off by more everywhere
_STEP_M = 50.0
_METRES_PER_DEGREE = 111_320.0  # within 0.4 % everywhere
_HEIGHT_UNITS_M = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 0.01),
    **dict.fromkeys(("ft", "foot", "feet", "international foot", "international feet"), 0.3048),
    **dict.fromkeys(("us-ft", "ftus", "us survey foot", "us survey feet", "foot_us", "sft"), 1200 / 3937),
}
logger = logging.getLogger(__name__)


@cache
def is_placed(crs: Any) -> bool:
    """Return whether the place on Earth of a map is known: not that of a mine's local grid, nor without a ``crs``."""
    try:
        return crs is not None and bool(pyproj.Transformer.from_crs(crs, _WGS84))
    except pyproj.exceptions.ProjError:
        return False


@cache
def same_map(crs: Any, other: Any) -> bool:
    """Return whether coordinates mean the same in two coordinate reference systems, None for none.

    They may be spelled differently. Local grids are the same if their names, units and axes are: not every format keeps
    their datum, and PROJ does not look at their names.
    """
    if crs is None or other is None:
        return crs is other
    if is_placed(crs) or is_placed(other):
        return pyproj.CRS(crs).equals(pyproj.CRS(other), ignore_axis_order=True)
    return _local_grid(crs) == _local_grid(other)


def _local_grid(crs: Any) -> tuple:
    known = pyproj.CRS(crs)
    known = known.sub_crs_list[0] if known.is_compound else known
    name = "".join(filter(str.isalnum, known.name.lower()))  # a Shapefile has _ in place of spaces
    return name, [(axis.direction, axis.unit_conversion_factor) for axis in known.axis_info[:2]]


def check_same_ground(path: str, crs: Any, other_path: str, other: Any) -> None:
    """Refuse two files, by a DataError, of which the maps, ``crs`` and ``other``, have no way to each other.

    They have none where only one states a coordinate reference system, and from a local grid to any other map.
    """
    if (crs is None) != (other is None):
        bare, placed = (path, other_path) if crs is None else (other_path, path)
        raise DataError(
            f"{bare}: has no coordinate reference system, but {placed} has one; give it its own, as with "
            "ogr2ogr -a_srs or gdal_edit.py -a_srs"
        )
    if not same_map(crs, other) and not (is_placed(crs) and is_placed(other)):
        one, two = (f"'{known.name}' ({known.axis_info[0].unit_name})" for known in map(pyproj.CRS, (crs, other)))
        raise DataError(
            f"{path}: is on the map {one}, but {other_path} on {two}, and from a local grid there is no way to another "
            "map; bring both onto one"
        )


def reprojected(lines: Sequence[np.ndarray], crs: str | None, target: str | None) -> list[np.ndarray]:
    """Return ``lines``, map (x, y) in ``crs``, (N, 2) each, in the coordinate reference system ``target``.

    On the `same_map` they are as they are.
    """
    if same_map(crs, target):
        return list(lines)
    return [np.stack(warp.transform(crs, target, line[:, 0], line[:, 1]), axis=1) for line in lines]


def metric_of(crs: str | None, place: np.ndarray, name: str) -> tuple[str | None, float]:
    """Return where lengths around a place of a map are measured, the same for all that lies there.

    A map whose units are true lengths there is measured as it is, be they metres or feet; others, such as those in
    degrees or a web map, in the UTM zone of the place. A map whose place on Earth is unknown has the units that its
    coordinate reference system states; without one they are metres. Messages call what lies there by its ``name``.

    Returns:
        the coordinate reference system to take points to, None without one, and the metres in its unit.

    Raises:
        DataError: the place is outside this coordinate reference system.
    """
    if crs is None:
        return None, 1.0
    known = _crs(crs)
    unit_m = float(known.units_factor[1]) or 1.0  # 0 says that it is not known
    if not is_placed(crs):
        return crs, unit_m
    zone = metric_crs(crs, place, name)
    if known.is_projected:
        (here,) = reprojected([place[None]], crs, zone)
        (start, *ends) = reprojected([here + _STEP_M * np.eye(3, 2, -1)], zone, crs)[0]
        if np.abs(np.hypot(*(ends - start).T) * unit_m / _STEP_M - 1).max() < _TRUE:
            return crs, unit_m
    return zone, 1.0


def metric_crs(crs: str, place: Sequence[float] | np.ndarray, name: str) -> str:
    """Return the UTM zone of a ``place`` (x, y) in ``crs``, as an EPSG code; the nearest one beyond 84 N and 80 S.

    Raises:
        DataError: the place is outside this coordinate reference system; it calls what lies there by its ``name``.
    """
    try:
        (longitude,), (latitude,) = warp.transform(crs, _WGS84, [place[0]], [place[1]])
    except Exception:  # rasterio has no public name for what GDAL raises where a projection ends
        longitude = latitude = math.nan
    if not (abs(longitude) <= 360 and abs(latitude) <= 90):
        raise DataError(
            f"{name}: lies around {place[0]:g} {place[1]:g}, which is nowhere in {crs[:40]}; correct the coordinate "
            "reference system"
        )
    longitude, latitude = (longitude + 180) % 360 - 180, min(max(latitude, -80.0), 84.0)
    around = [
        (area.west, area.south, code)
        for area, code in _utm_zones()
        if area.west <= longitude <= area.east and area.south <= latitude <= area.north
    ]
    return max(around)[2]  # on a border the zone to the east or north


@cache
def _utm_zones() -> list[tuple[Any, str]]:
    """Return where each UTM zone is used, in degrees, and its EPSG code."""
    zones = _database.query_utm_crs_info(datum_name="WGS 84")  # asked once: a query for a place takes 0.1 s
    return [(zone.area_of_use, f"EPSG:{zone.code}") for zone in zones]


def _crs(name: str) -> Any:
    return rasterio.crs.CRS.from_user_input(name)


def ground_sampling_distance(info: RasterInfo) -> float | None:
    """Return metres per pixel of a raster, the geometric mean of both directions; None without a georeference.

    Degrees are turned into metres at its upper left corner, other units in its middle, as `metric_of` says.

    Raises:
        DataError: its place is outside its coordinate reference system.
    """
    if info.transform is None or info.crs is None:
        return None
    a, b, left, d, e, top = info.transform
    x, y = math.hypot(a, d), math.hypot(b, e)
    known = _crs(info.crs)
    if known.is_geographic and math.isclose(known.units_factor[1], math.radians(1)) and abs(top) < 90:
        return math.sqrt(x * _METRES_PER_DEGREE * math.cos(math.radians(top)) * (y * _METRES_PER_DEGREE))
    right, down = info.width / 2, info.height / 2
    middle = np.array([a * right + b * down + left, d * right + e * down + top])
    crs, unit_m = metric_of(info.crs, middle, info.path)
    return math.sqrt(x * unit_m * (y * unit_m)) if crs == info.crs else PixelFrame(info).pixel_size


def height_unit_m(info: RasterInfo) -> float:
    """Return how many metres are in the unit of a DEM: that of its band, else of its vertical axis, else 1.

    Raises:
        DataError: the band states an unknown unit.
    """
    if info.unit is not None:
        if (name := info.unit.strip().lower()) not in _HEIGHT_UNITS_M:
            raise DataError(f"{info.path}: has heights in {info.unit}, an unknown unit; set it to m, ft or us-ft")
        return _HEIGHT_UNITS_M[name]
    axes = pyproj.CRS(info.crs).axis_info if info.crs else []
    if len(axes) > 2:
        return axes[2].unit_conversion_factor
    if axes and "foot" in axes[0].unit_name:
        logger.warning("%s: its map is in feet, the unit of its heights is not stated; metres are assumed", info.path)
    return 1.0


class PixelFrame:
    """From the pixels of a raster to its map, and to metres.

    Points in pixels are (x, y), x the column and y the row, whole numbers at pixel centres. A raster without
    georeference has a map in pixels too, x as it is and y upwards, as GIS show it.

    Attributes:
        crs: of the map, None without one.
        unit: ``m``, or ``px`` where nothing is known of the ground.

    Raises:
        DataError: its transform maps all pixels onto a line, or its place is outside its coordinate reference system.
    """

    def __init__(self, info: RasterInfo) -> None:
        self.crs = info.crs if info.transform is not None else None
        self.unit = "px" if info.transform is None else "m"
        self._transform = rasterio.Affine(*(info.transform or (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)))
        self._centre = np.array([[info.width / 2, info.height / 2]])
        if self._transform.is_degenerate:
            raise DataError(f"{info.path}: its georeference is degenerate; give it another")
        if info.transform is None:
            logger.warning("%s: has no georeference; lengths and places are in pixels", info.path)
        elif self.crs is None:
            logger.warning("%s: has no coordinate reference system; its units are assumed to be metres", info.path)
        self._metric_crs, self._unit_m = metric_of(self.crs, self.to_map(self._centre)[0], info.path)

    def to_map(self, xy_px: np.ndarray) -> np.ndarray:
        """Return points (N, 2) in map coordinates."""
        return np.stack(self._transform @ (xy_px.T + 0.5), axis=1)

    def to_metres(self, xy_px: np.ndarray) -> np.ndarray:
        """Return points (N, 2) in metres on the ground, where `metric_of` says."""
        (points,) = reprojected([self.to_map(xy_px)], self.crs, self._metric_crs)
        return points * self._unit_m

    def pixel_area(self, xy_px: np.ndarray) -> np.ndarray:
        """Return the area (N,) of the pixels around points (N, 2), in square metres."""
        right, down = (self.to_metres(xy_px + step) - self.to_metres(xy_px - step) for step in ([0.5, 0], [0, 0.5]))
        return np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0])

    @cached_property
    def pixel_size(self) -> float:
        """Metres per pixel in the middle of the raster, the geometric mean of both directions."""
        return float(np.sqrt(self.pixel_area(self._centre)[0]))
