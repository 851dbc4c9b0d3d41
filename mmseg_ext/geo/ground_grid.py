"""Square pixels on the ground that several rasters share, and reading any raster on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import DataError, lazy_import
from .georeference import ground_sampling_distance
from .metric import metric_of
from .raster import RasterInfo, Transform, Window, moved, rasterio_module
from .raster_source import RasterSource
from .vector import reprojected

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
