"""Square pixels on the ground that several rasters share, any raster read on them, and whether two rasters fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import DataError, LazyModule
from .metric import PixelFrame, check_same_ground, ground_sampling_distance, metric_of, same_map
from .raster import RasterInfo, RasterSource, Transform, Window, rasterio, transform_at
from .sources import opened_as
from .vector import outline
from .virtual import expanded, has_colour_table, with_alpha_as_data

vrt = LazyModule("rasterio.vrt", None, "resampling")
# of a pixel: the same corner; the same pixel of two rasters of one frame, and of two that were cut apart
_SAME, _ONE_FRAME, _ONE_GRID = 1e-6, 0.5, 0.1
_ANY_MAP = 'LOCAL_CS["any map",UNIT["metre",1]]'  # GDAL resamples from map to map


@dataclass(frozen=True)
class GroundGrid:
    """Square pixels, north up, without end; rows and columns count from the origin and may be negative.

    Attributes:
        crs: of the map, whose units are true lengths (no degrees); None without one.
        left: map x of the origin, the upper left corner of row 0, column 0.
        top: map y of the origin.
        step: side of a pixel in map units.
        unit_m: metres in a map unit.
    """

    crs: str | None
    left: float
    top: float
    step: float
    unit_m: float

    @property
    def gsd_m(self) -> float:
        """Ground sampling distance in metres per pixel."""
        return self.step * self.unit_m

    def transform(self, row: int = 0, column: int = 0) -> Transform:
        """Return the transform, as in `RasterInfo`, of a raster that begins at ``row`` and ``column``."""
        return transform_at((self.step, 0.0, self.left, 0.0, -self.step, self.top), row, column)

    def bounds(self, window: Window) -> tuple[float, float, float, float]:
        """Return map (left, bottom, right, top) of a ``window`` (row, column, height, width)."""
        row, column, height, width = window
        part = rasterio.windows.Window(column, row, width, height)
        return rasterio.windows.bounds(part, rasterio.Affine(*self.transform()))

    def window_of(self, info: RasterInfo) -> Window:
        """Return the window (row, column, height, width) that a georeferenced raster covers."""
        bounds = outline(info, self.crs).bounds
        part = rasterio.windows.from_bounds(*bounds, transform=rasterio.Affine(*self.transform()))
        row, column = (math.floor(start + _SAME) for start in (part.row_off, part.col_off))
        bottom, right = part.row_off + part.height, part.col_off + part.width
        return row, column, math.ceil(bottom - _SAME) - row, math.ceil(right - _SAME) - column


def grid_of(info: RasterInfo, gsd_m: float | None = None) -> GroundGrid:
    """Return the grid of a raster: its own pixels where they are square and north up.

    The map is the raster's own, or its UTM zone where its units are no true lengths, as `metric_of` says. The raster
    has a transform; without a coordinate reference system the log says that its units are taken as metres. None takes
    its metres per pixel.
    """
    own_gsd_m = ground_sampling_distance(info) or PixelFrame(info).pixel_size
    left, bottom, right, top = outline(info, info.crs).bounds
    crs, unit_m = metric_of(info.crs, np.array([left + right, bottom + top]) / 2, info.path)
    if crs != info.crs:
        own_gsd_m = round(PixelFrame(info).pixel_size, 4) or own_gsd_m
        left, _, _, top = outline(info, crs).bounds
    return GroundGrid(crs, left, top, (gsd_m or own_gsd_m) / unit_m, unit_m)


class GridSource:
    """A raster read on a `GroundGrid`: its own pixels where the grids agree, else resampled.

    All bands are read; alpha is one of them where its number is among the ``bands`` that are wanted.

    Resampled values are the average of the valid pixels where the grid is coarser than the raster, else bilinear. A
    context manager, for one thread at a time.

    Attributes:
        info: header of the raster.
        window: (row, column, height, width) of the grid that the raster covers.

    Raises:
        DataError: missing or unreadable.
    """

    def __init__(self, path: str, grid: GroundGrid, bands: Sequence[int] | None = None) -> None:
        with ExitStack() as files:
            self._source = files.enter_context(RasterSource(path, colours=True))
            self.info = self._source.info
            self.window = grid.window_of(self.info)
            self._count = self.info.bands_for(bands)
            self._bands = None if self._count == self.info.bands else range(1, self._count + 1)
            own = same_map(grid.crs, self.info.crs) and self._is_own(grid.transform(*self.window[:2]))
            self._warped = None if own else _warped(self.info, grid, self.window, self._bands is None, files)
            self._files = files.pop_all()

    def _is_own(self, transform: Transform) -> bool:
        """Return whether a raster of this ``transform`` has the same pixels as the file."""
        own = self.info.transform
        if own is None or self.window[2:] != (self.info.height, self.info.width):
            return False
        apart = [
            np.subtract(transform_at(own, *corner), transform_at(transform, *corner))
            for corner in ((0, 0), self.window[2:])
        ]
        return bool(np.abs(apart).max() < _SAME * transform[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return values (h, w, B) in the file's type, 0 beyond the raster, and valid (h, w) bool.

        The ``window`` (row, column, height, width) of the grid may reach beyond the raster.

        Raises:
            DataError: the file is truncated or damaged there.
        """
        row, column, height, width = window
        top, left = max(row, self.window[0]), max(column, self.window[1])
        bottom = min(row + height, self.window[0] + self.window[2])
        right = min(column + width, self.window[1] + self.window[3])
        values = np.zeros((height, width, self._count), self.info.dtype)
        valid = np.zeros((height, width), bool)
        if top < bottom and left < right:
            inside = slice(top - row, bottom - row), slice(left - column, right - column)
            part = top - self.window[0], left - self.window[1], bottom - top, right - left
            if self._warped is None:
                values[inside], known = self._source.read(*part, bands=self._bands)
                valid[inside] = True if known is None else known
            else:
                values[inside], valid[inside] = self._read_warped(self._warped, part)
        return values, valid

    def _read_warped(self, raster: Any, window: Window) -> tuple[np.ndarray, np.ndarray]:
        row, column, height, width = window
        try:
            layers = raster.read(window=rasterio.windows.Window(column, row, width, height))
        except rasterio.errors.RasterioError:
            raise DataError(f"{self.info.path}: is truncated or damaged; replace it or take it out") from None
        alpha = np.array([role == rasterio.enums.ColorInterp.alpha for role in raster.colorinterp])
        values, valid = layers[~alpha].transpose(1, 2, 0), (layers[alpha] > 0).all(axis=0)
        return values, valid & np.isfinite(values).all(axis=2) if values.dtype.kind == "f" else valid


def _warped(info: RasterInfo, grid: GroundGrid, window: Window, with_alpha: bool, files: ExitStack) -> Any:
    """Return the raster ``info`` opened as if it had the pixels of a ``window`` of ``grid``, and alpha.

    Its own alpha is that, or a band of data if not ``with_alpha``.
    """
    methods = rasterio.enums.Resampling
    assert info.transform is not None
    own_gsd_m = ground_sampling_distance(info) or grid.unit_m * math.sqrt(
        abs(rasterio.Affine(*info.transform).determinant)
    )
    coarser = grid.gsd_m > own_gsd_m * (1 + _SAME)
    # overviews may be of any quality
    raster = files.enter_context(rasterio.open(opened_as(info.path), OVERVIEW_LEVEL="NONE"))
    stored = raster
    if has_colour_table(raster):
        raster = expanded(raster, info.path, files)
    elif not with_alpha:
        raster = with_alpha_as_data(raster, info.path, files)
    place = {} if raster is stored else dict(src_crs=stored.crs, src_transform=stored.transform)
    if same_map(info.crs, grid.crs):
        place["src_crs"] = grid.crs or _ANY_MAP
    row, column, height, width = window
    warped = vrt.WarpedVRT(
        raster,
        crs=grid.crs or _ANY_MAP,
        transform=rasterio.Affine(*grid.transform(row, column)),
        height=height,
        width=width,
        resampling=methods.average if coarser else methods.bilinear,
        add_alpha=rasterio.enums.ColorInterp.alpha not in raster.colorinterp,
        **place,
        UNIFIED_SRC_NODATA="YES",  # a pixel is nodata where every band is, as everywhere here
    )
    return files.enter_context(warped)


def disagreement(image: RasterInfo, mask: RasterInfo) -> str | None:
    """Return how the georeference of ``mask`` differs from its image's, None where it does not.

    Both are headers of rasters of the same rows and columns, whose corners may be half a pixel of the image apart.
    Rasters without a georeference cannot disagree.
    """
    if image.transform is None or mask.transform is None:
        return None
    if not _same_crs(image, mask):
        return f"the mask is in {str(mask.crs)[:40]}, the image in {str(image.crs)[:40]}"
    if _affine(image).is_degenerate:
        return "the image's georeference is degenerate"
    shifts = _shifts(image, mask)
    if np.abs(shifts).max() <= _ONE_FRAME:
        return None
    right, down = (round(float(value), 1) + 0.0 for value in shifts[:, 0])
    if np.abs(shifts - [[right], [down]]).sum(axis=0).max() <= 2 * _ONE_FRAME:
        return f"the mask lies {right:+.1f} px right and {down:+.1f} px down of its image"
    return "the mask has another pixel size or rotation than its image"


def common_ground(truth: RasterInfo, other: RasterInfo) -> tuple[Window, Window]:
    """Return the windows of two rasters that show the same ground pixel by pixel; of the ``truth``, and of the other.

    Rasters of one size that `disagreement` accepts, such as images without a georeference, are compared whole. Any
    others have one grid: their pixels are as large and lie the same way, a whole number of pixels apart to within a
    tenth.

    Raises:
        DataError: no georeference and another size, maps without a way to each other, not one grid, or no common
            ground; says how ``other`` differs, and what to do.
    """
    if truth.transform is not None and other.transform is not None:
        check_same_ground(other.path, other.crs, truth.path, truth.crs)
    sizes = [(info.height, info.width) for info in (truth, other)]
    if sizes[0] == sizes[1] and disagreement(truth, other) is None:
        return (0, 0, *sizes[0]), (0, 0, *sizes[1])
    for info, partner in ((other, truth), (truth, other)):
        if info.transform is None:
            raise DataError(
                f"{info.path}: {info.width}x{info.height} px without a georeference, but {partner.path} has "
                f"{partner.width}x{partner.height} px; bring both to one size, or give both a georeference"
            )
    if not _same_crs(truth, other):
        raise _on_another_grid(truth, other, f"is in {str(other.crs)[:40]}, but {truth.path} in {str(truth.crs)[:40]}")
    if _affine(truth).is_degenerate:
        raise DataError(f"{truth.path}: its georeference is degenerate; give it another")
    shifts = _shifts(truth, other)
    if np.abs(shifts - shifts[:, :1]).max() > _ONE_GRID:
        own, wanted = (" x ".join(f"{side:.6g}" for side in _pixel_sides(info)) for info in (other, truth))
        difference = f"has pixels of {own}, but {truth.path} of {wanted}"
        if np.allclose(_pixel_sides(other), _pixel_sides(truth), rtol=1e-7):
            difference = f"is rotated or turned over beside {truth.path}"
        raise _on_another_grid(truth, other, difference)
    right, down = shifts[:, 0].tolist()
    column, row = round(right), round(down)
    if max(abs(right - column), abs(down - row)) > _ONE_GRID:
        where = f"{right:+.2f} px right and {down:+.2f} px down of the corner of {truth.path}"
        raise _on_another_grid(truth, other, f"begins {where}, not whole pixels")
    top, left = max(row, 0), max(column, 0)
    height, width = min(row + other.height, truth.height) - top, min(column + other.width, truth.width) - left
    if height <= 0 or width <= 0:
        raise DataError(
            f"{other.path}: has no ground in common with {truth.path}, it begins {column:+d} px right and {row:+d} px "
            "down of its corner; give two of one place, or correct the georeference of one"
        )
    return (top, left, height, width), (top - row, left - column, height, width)


def _affine(info: RasterInfo) -> Any:
    assert info.transform is not None
    return rasterio.Affine(*info.transform)


def _pixel_sides(info: RasterInfo) -> tuple[float, float]:
    """Return the width and the height of a pixel, map units."""
    affine = _affine(info)
    return math.hypot(affine.a, affine.d), math.hypot(affine.b, affine.e)


def _same_crs(one: RasterInfo, other: RasterInfo) -> bool:
    """Return whether two rasters may be of one map, also where one does not say."""
    return not one.crs or not other.crs or same_map(one.crs, other.crs)


def _shifts(one: RasterInfo, other: RasterInfo) -> np.ndarray:
    """Return how far (2, 4), to the right and down in pixels of ``one``, the corners of ``other`` lie from one's.

    One's are those that it would have with the rows and columns of the other.
    """
    here, there = _affine(one), _affine(other)
    corners = np.array([(0, 0), (other.width, 0), (0, other.height), (other.width, other.height)]).T
    on_map = np.subtract(there @ corners, here @ corners)
    return np.array(~(rasterio.Affine.translation(-here.c, -here.f) @ here) @ on_map)


def _on_another_grid(truth: RasterInfo, other: RasterInfo, difference: str) -> DataError:
    """Return the error of an ``other`` raster that has not the pixels of ``truth``."""
    affine = _affine(truth)
    if affine.b or affine.d or affine.a < 0 or affine.e > 0:  # which gdalwarp does not write
        remedy = "bring both onto one grid that is north up, as with gdalwarp -t_srs, -tr and -te"
    else:
        left, top = affine.c, affine.f
        bounds = left, top + truth.height * affine.e, left + truth.width * affine.a, top
        sides, extent = (" ".join(f"{n:.12g}" for n in numbers) for numbers in ((affine.a, -affine.e), bounds))
        onto = "" if _same_crs(truth, other) else f"-t_srs '{truth.crs}' "
        remedy = f"bring it onto those pixels: gdalwarp {onto}-tr {sides} -te {extent} {other.path} OUT.tif"
    return DataError(f"{other.path}: {difference}; {remedy}")
