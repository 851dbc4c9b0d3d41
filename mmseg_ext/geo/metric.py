"""In which coordinate reference system a map is measured."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, lazy_import
from .raster import RasterInfo, RasterSource, Transform, Window, ground_sampling_distance, moved, rasterio_module
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


# -- geo.pixel_frame
# From the pixels of a raster to its map, and to metres.

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


# -- geo.ground_grid
# Square pixels on the ground that several rasters share, and reading any raster on them.

_SAME = 1e-6  # of a pixel


@dataclass(frozen=True)
class GroundGrid:
    """Square pixels, north up, without end; rows and columns count from the origin and may be negative.

    Attributes:
        crs: of the map, whose units are true lengths (no degrees).
        left: map x of the origin, the upper left corner of row 0, column 0.
        top: map y of the origin.
        step: side of a pixel in map units.
        unit_m: metres in a map unit.
    """

    crs: str
    left: float
    top: float
    step: float
    unit_m: float

    @property
    def gsd_m(self) -> float:
        """Ground sampling distance in metres per pixel."""
        return self.step * self.unit_m

    def transform(self, row: int, column: int) -> Transform:
        """Return the transform, as in `RasterInfo`, of a raster that begins at ``row`` and ``column``."""
        return self.step, 0.0, self.left + column * self.step, 0.0, -self.step, self.top - row * self.step

    def bounds(self, window: Window) -> tuple[float, float, float, float]:
        """Return map (left, bottom, right, top) of a ``window`` (row, column, height, width)."""
        row, column, height, width = window
        left, top = self.left + column * self.step, self.top - row * self.step
        return left, top - height * self.step, left + width * self.step, top

    def window_of(self, info: RasterInfo) -> Window:
        """Return the window (row, column, height, width) that a georeferenced raster covers."""
        left, bottom, right, top = _bounds(info, self.crs)
        row, column = (math.floor(v / self.step + _SAME) for v in (self.top - top, left - self.left))
        below, beyond = (math.ceil(v / self.step - _SAME) for v in (self.top - bottom, right - self.left))
        return row, column, below - row, beyond - column


def _bounds(info: RasterInfo, crs: str) -> tuple[float, float, float, float]:
    """Return (left, bottom, right, top) of a raster's outline, 21 points a side, in ``crs``."""
    assert info.transform is not None and info.crs is not None
    a, b, c, d, e, f = info.transform
    along = np.linspace(0, 1, 21)
    column = np.concatenate([along, along, 0 * along, 0 * along + 1]) * info.width
    row = np.concatenate([0 * along, 0 * along + 1, along, along]) * info.height
    points = np.stack([a * column + b * row + c, d * column + e * row + f], axis=1)
    if crs != info.crs:
        (points,) = reprojected([points], info.crs, crs)
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    return float(left), float(bottom), float(right), float(top)


def grid_of(info: RasterInfo, gsd_m: float | None = None) -> GroundGrid:
    """Return the grid of a raster: its own pixels where they are square and north up.

    The map is the raster's own, or its UTM zone where its units are no true lengths, as `metric_of` says.

    Args:
        info: header of the raster, georeferenced.
        gsd_m: metres per pixel; None takes the raster's.
    """
    assert info.transform is not None and info.crs is not None
    own_gsd_m = ground_sampling_distance(info)
    assert own_gsd_m is not None
    left, bottom, right, top = _bounds(info, info.crs)
    crs, unit_m = metric_of(info.crs, np.array([left + right, bottom + top]) / 2, info.path)
    assert crs is not None
    if crs != info.crs:
        height, width = GroundGrid(crs, 0.0, 0.0, 1.0, 1.0).window_of(info)[2:]
        own_gsd_m = round(math.sqrt(height * width / (info.height * info.width)), 4) or own_gsd_m
        left, _, _, top = _bounds(info, crs)
    return GroundGrid(crs, left, top, (gsd_m or own_gsd_m) / unit_m, unit_m)


class GridSource:
    """A raster read on a `GroundGrid`: its own pixels where the grids agree, else resampled.

    Resampled values are the average of the valid pixels where the grid is coarser than the raster, else bilinear. A
    context manager, for one thread at a time.

    Attributes:
        info: header of the raster.
        window: (row, column, height, width) of the grid that the raster covers.

    Args:
        path: any georeferenced raster that GDAL reads.
        grid: the pixels to read it on.

    Raises:
        DataError: missing or unreadable.
        MissingExtraError: rasterio is not installed.
    """

    def __init__(self, path: str, grid: GroundGrid) -> None:
        self._source = RasterSource(path)
        self.info = self._source.info
        self.window = grid.window_of(self.info)
        transform = grid.transform(*self.window[:2])
        self._warped = None if self._is_own(transform, grid.crs) else _warped(self.info, grid, self.window)

    def _is_own(self, transform: Transform, crs: str) -> bool:
        """Return whether a raster of this ``transform`` has the same pixels as the file."""
        own = self.info.transform
        if own is None or crs != self.info.crs or self.window[2:] != (self.info.height, self.info.width):
            return False
        far = np.array(moved(own, self.info.height, self.info.width)) - moved(transform, *self.window[2:])
        near = np.array(own) - transform
        return bool(max(np.abs(near).max(), np.abs(far).max()) < _SAME * transform[0])

    def __enter__(self) -> GridSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.close()
        if self._warped is not None:
            self._warped.close()
            self._warped.src_dataset.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return values (h, w, B) in the file's type, 0 beyond the raster, and valid (h, w) bool.

        Args:
            window: (row, column, height, width) on the grid; it may reach beyond the raster.

        Raises:
            DataError: the file is truncated or damaged there.
        """
        row, column, height, width = window
        top, left = max(row, self.window[0]), max(column, self.window[1])
        bottom = min(row + height, self.window[0] + self.window[2])
        right = min(column + width, self.window[1] + self.window[3])
        values = np.zeros((height, width, self.info.bands), self.info.dtype)
        valid = np.zeros((height, width), bool)
        if top < bottom and left < right:
            inside = slice(top - row, bottom - row), slice(left - column, right - column)
            part = top - self.window[0], left - self.window[1], bottom - top, right - left
            if self._warped is None:
                values[inside], known = self._source.read(*part)
                valid[inside] = True if known is None else known
            else:
                values[inside], valid[inside] = self._read_warped(self._warped, part)
        return values, valid

    def _read_warped(self, raster: Any, window: Window) -> tuple[np.ndarray, np.ndarray]:
        rasterio = rasterio_module()
        row, column, height, width = window
        try:
            layers = raster.read(window=rasterio.windows.Window(column, row, width, height))
        except rasterio.errors.RasterioError:
            raise DataError(f"{self.info.path}: is truncated or damaged; replace it or take it out") from None
        alpha = np.array([role == rasterio.enums.ColorInterp.alpha for role in raster.colorinterp])
        values, valid = layers[~alpha].transpose(1, 2, 0), (layers[alpha] > 0).all(axis=0)
        return values, valid & np.isfinite(values).all(axis=2) if values.dtype.kind == "f" else valid


def _warped(info: RasterInfo, grid: GroundGrid, window: Window) -> Any:
    """Return the raster ``info`` opened as if it had the pixels of a ``window`` of ``grid``, and alpha."""
    rasterio = rasterio_module()
    warp = lazy_import("rasterio.vrt", "geo", "resampling")
    methods = rasterio.enums.Resampling
    own_gsd_m = ground_sampling_distance(info)
    coarser = own_gsd_m is not None and grid.gsd_m > own_gsd_m * (1 + _SAME)
    raster = rasterio.open(info.path, OVERVIEW_LEVEL="NONE")  # overviews may be of any quality
    row, column, height, width = window
    return warp.WarpedVRT(
        raster,
        crs=grid.crs,
        transform=rasterio.Affine(*grid.transform(row, column)),
        height=height,
        width=width,
        resampling=methods.average if coarser else methods.bilinear,
        add_alpha=rasterio.enums.ColorInterp.alpha not in raster.colorinterp,
        UNIFIED_SRC_NODATA="YES",  # a pixel holds nothing where every band is nodata, as everywhere here
    )
