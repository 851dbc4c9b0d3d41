"""What a raster's header says, and writing small rasters."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, lazy_import

Window = tuple[int, int, int, int]
Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class RasterInfo:
    """What the header of a raster says.

    Attributes:
        path: the file.
        height: rows.
        width: columns.
        bands: bands, alpha not counted.
        dtype: NumPy name of the values' type.
        has_alpha: whether an alpha band or a mask tells which pixels are valid.
        nodata: value of pixels that hold nothing, None without one.
        crs: coordinate reference system as an authority code or WKT, None without one.
        transform: (a, b, c, d, e, f): map x = a * column + b * row + c, map y = d * column + e * row + f, of the
            pixel's upper left corner; None without georeference.
        scale: what the values of the first band are to be multiplied with, as the file says.
        offset: what is then to be added to them, as the file says.
        unit: of the values of the first band then, as the file says; None where it does not.
    """

    path: str
    height: int
    width: int
    bands: int
    dtype: str
    has_alpha: bool = False
    nodata: float | None = None
    crs: str | None = None
    transform: Transform | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None

    @property
    def may_have_holes(self) -> bool:
        """Whether some pixels may hold no image."""
        return self.has_alpha or self.nodata is not None


def moved(transform: Transform, row: float, column: float) -> Transform:
    """Return the transform of the raster that begins at ``row`` and ``column`` of this one."""
    a, b, c, d, e, f = transform
    return a, b, a * column + b * row + c, d, e, d * column + e * row + f


def rasterio_module(purpose: str = "reading and writing GeoTIFF") -> ModuleType:
    """Return rasterio.

    Raises:
        MissingExtraError: it is not installed.
    """
    rasterio = lazy_import("rasterio", "geo", purpose)
    # once and for all: filters of a moment are not safe in threads, and images without georeference are normal here
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def write_geotiff(
    path: str,
    values: np.ndarray,
    crs: str | None = None,
    transform: Transform | None = None,
    valid: np.ndarray | None = None,
    nodata: float | None = None,
) -> None:
    """Write ``values`` as a tiled, losslessly compressed GeoTIFF.

    Args:
        path: file to write.
        values: (H, W) or (H, W, B).
        crs: coordinate reference system, as in `RasterInfo`.
        transform: pixel to map, as in `RasterInfo`.
        valid: (H, W) bool; written as an alpha band when given.
        nodata: value of pixels that hold nothing.
    """
    rasterio = rasterio_module()
    layers = values[:, :, None] if values.ndim == 2 else values
    colours = layers.shape[2]
    if valid is not None:
        full = np.iinfo(layers.dtype).max if np.issubdtype(layers.dtype, np.integer) else 255
        layers = np.concatenate([layers, np.where(valid, full, 0).astype(layers.dtype)[:, :, None]], axis=2)
    height, width, count = layers.shape
    profile = dict(
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=layers.dtype.name,
        compress="deflate",
        predictor=2 if np.issubdtype(layers.dtype, np.integer) else 1,
        photometric="RGB" if colours == 3 else "MINISBLACK",
        nodata=nodata,
    )
    if min(height, width) >= 256:
        profile.update(tiled=True, blockxsize=256, blockysize=256)
    if crs is not None:
        profile["crs"] = crs
    if transform is not None:
        profile["transform"] = rasterio.Affine(*transform)
    if valid is not None:
        profile["alpha"] = "YES"
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(layers.transpose(2, 0, 1))


# -- geo.raster_source
# Rasters of any format, depth, size and band count, read whole or by windows.

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class GroundControlPoint(NamedTuple):
    """A place of the raster, (row, column) in pixels from its upper left corner, and its (x, y, z) on the map."""

    row: float
    column: float
    x: float
    y: float
    z: float = 0.0
    id: str = ""


@dataclass(frozen=True)
class Georeference:
    """Where a raster lies.

    Attributes:
        crs: coordinate reference system of ``transform`` as an authority code or WKT, None without one.
        transform: as in `RasterInfo`, rotated and south-up ones too; None without one.
        gcps: ground control points.
        gcps_crs: coordinate reference system of ``gcps``.
    """

    crs: str | None = None
    transform: Transform | None = None
    gcps: tuple[GroundControlPoint, ...] = ()
    gcps_crs: str | None = None


def _open(path: str, **options: str) -> Any:
    rasterio = rasterio_module()
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    try:
        return rasterio.open(path, **options)
    except rasterio.errors.RasterioError as error:
        raise DataError(f"{path}: cannot be read as a raster ({error}); replace it or take it out") from None


def _exact() -> Any:
    """Return a context without GDAL's fast way to read a whole PNG, which gives garbage for a truncated one.

    It must be there both when the file is opened and when it is read.
    """
    return rasterio_module().Env(GDAL_PNG_WHOLE_IMAGE_OPTIM="NO")


def _colour_bands(raster: Any) -> list[int]:
    """Return the numbers, from 1, of the bands that are no alpha."""
    alpha = rasterio_module().enums.ColorInterp.alpha
    return [i for i, role in enumerate(raster.colorinterp, 1) if role != alpha]


def _has_mask(raster: Any) -> bool:
    """Return whether one mask, in the file or beside it, tells the valid pixels of all bands."""
    return rasterio_module().enums.MaskFlags.per_dataset in raster.mask_flag_enums[0]


def _crs_name(crs: Any) -> str | None:
    return crs.to_string() if crs else None


def _transform(raster: Any) -> Transform | None:
    transform = tuple(raster.transform)[:6]
    return None if transform == _IDENTITY else transform


def _info(raster: Any, path: str) -> RasterInfo:
    colour = _colour_bands(raster)
    return RasterInfo(
        path=path,
        height=raster.height,
        width=raster.width,
        bands=len(colour),
        dtype=raster.dtypes[0],
        has_alpha=len(colour) < raster.count or _has_mask(raster),
        nodata=raster.nodata,
        crs=_crs_name(raster.crs),
        transform=_transform(raster),
        scale=raster.scales[0],
        offset=raster.offsets[0],
        unit=raster.units[0] or None,
    )


def _georeference(raster: Any) -> Georeference:
    points, crs = raster.gcps
    return Georeference(
        crs=_crs_name(raster.crs),
        transform=_transform(raster),
        gcps=tuple(GroundControlPoint(p.row, p.col, p.x, p.y, p.z or 0.0, p.id or "") for p in points),
        gcps_crs=_crs_name(crs),
    )


def _holds(values: np.ndarray, nodata: float) -> np.ndarray:
    exact = values.dtype.kind in "iu" and nodata.is_integer()  # integers compare without a copy as floats
    return values != (int(nodata) if exact else nodata)


def _valid(raster: Any, values: np.ndarray, bands: Sequence[int], where: dict[str, Any]) -> np.ndarray | None:
    """Return the valid pixels (h, w) of ``values`` (h, w, B), the ``bands`` read ``where``; None where all are."""
    parts = []
    alphas = sorted(set(range(1, raster.count + 1)) - set(_colour_bands(raster)))
    if alphas:
        parts.append(raster.read(alphas[0], **where) > 0)
    elif _has_mask(raster):
        parts.append(raster.read_masks(1, **where) > 0)
    nodata = [raster.nodatavals[band - 1] for band in bands]
    if all(value is not None for value in nodata):
        parts.append(np.logical_or.reduce([_holds(values[:, :, i], value) for i, value in enumerate(nodata)]))
    if values.dtype.kind == "f":
        parts.append(np.isfinite(values).all(axis=2))
    valid = np.logical_and.reduce(parts) if parts else None
    return None if valid is None or valid.all() else valid


def _read(
    raster: Any, path: str, window: Window, bands: Sequence[int] | None = None, out_shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    rasterio = rasterio_module()
    methods = rasterio.enums.Resampling
    row, column, height, width = window
    if not (0 <= row < row + height <= raster.height and 0 <= column < column + width <= raster.width):
        raise ValueError(f"window {window} is not inside {raster.height} x {raster.width} pixels")
    bands = _colour_bands(raster) if bands is None else list(bands)
    if not bands or min(bands) < 1 or max(bands) > raster.count:
        raise DataError(f"{path}: has bands 1 to {raster.count}, asked for {bands}; choose among them")
    shape = (height, width) if out_shape is None else out_shape
    where: dict[str, Any] = {"window": rasterio.windows.Window(column, row, width, height), "out_shape": shape}

    def pixels(method: Any) -> np.ndarray:
        return np.ascontiguousarray(raster.read(bands, resampling=method, **where).transpose(1, 2, 0))

    try:
        values = pixels(methods.nearest)
        valid = _valid(raster, values, bands, where)
        if tuple(shape) != (height, width):
            values = pixels(methods.bilinear if shape[0] * shape[1] > height * width else methods.average)
            if values.dtype.kind == "f" and not (finite := np.isfinite(values).all(axis=2)).all():
                valid = finite if valid is None else valid & finite
    except rasterio.errors.RasterioError:
        raise DataError(
            f"{path}: cannot be read in rows {row} to {row + height - 1}, it is truncated or damaged; "
            "replace it or take it out"
        ) from None
    return values, valid


class RasterSource:
    """A raster that stays open, to be read window by window; a context manager.

    One thread at a time may read it, whichever; processes that are forked need a source of their own. GDAL keeps
    decoded blocks in memory, of all rasters together 5 % of the machine's unless ``GDAL_CACHEMAX`` says otherwise.

    Attributes:
        info: what its header says.
        georeference: where it lies.

    Args:
        path: any file that GDAL reads: GeoTIFF, COG, VRT, PNG, JPEG, ...

    Raises:
        DataError: missing or unreadable.
        MissingExtraError: rasterio is not installed.
    """

    def __init__(self, path: str) -> None:
        with _open(path) as header:
            self.info = _info(header, path)
            self.georeference = _georeference(header)
        # Overviews may be of any quality: what is shrunk while reading is shrunk from the pixels themselves. The
        # header is read without the option, for with it rasterio gives random numbers for a transform that is missing.
        with _exact():
            self._raster = _open(path, OVERVIEW_LEVEL="NONE")

    def __enter__(self) -> RasterSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._raster.close()

    def read(
        self,
        row: int,
        column: int,
        height: int,
        width: int,
        bands: Sequence[int] | None = None,
        out_shape: tuple[int, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values and the valid pixels of a part of the raster.

        Args:
            row: first row of the part.
            column: first column of the part.
            height: rows of the part.
            width: columns of the part.
            bands: bands to read, from 1, in the order wanted; all but alpha when None. The others are not read.
            out_shape: (h, w) to resample the part to while reading: values bilinearly where it has more pixels than
                the part, else by the average of the valid ones; ``valid`` by the nearest pixel. (height, width)
                when None.

        Returns:
            values (h, w, B) in the file's type, and valid (h, w) bool, None where every pixel is valid. A pixel is
            invalid where alpha or the mask is 0, where every band read is nodata, or where one is no number.

        Raises:
            DataError: the file is truncated or damaged there, or has no such band.
            ValueError: the part is not inside the raster.
        """
        with _exact():
            return _read(self._raster, self.info.path, (row, column, height, width), bands, out_shape)


def raster_info(path: str) -> RasterInfo:
    """Return what the header of the raster at ``path`` says.

    Raises:
        DataError: missing or unreadable.
        MissingExtraError: rasterio is not installed.
    """
    with _open(path) as raster:
        return _info(raster, path)


def read_raster(path: str, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values and the valid pixels of the raster at ``path``, as `RasterSource.read` does.

    Args:
        path: any file that GDAL reads.
        window: (row, column, height, width) of the part to read, in pixels; all of it when None.

    Returns:
        values (H, W, B) in the file's type, alpha left out, and valid (H, W) bool, None where every pixel is valid.

    Raises:
        DataError: missing, truncated or unreadable.
        ValueError: the window is not inside the raster.
        MissingExtraError: rasterio is not installed.
    """
    with _open(path) as raster:  # without the georeference: naming an unusual one takes longer than reading an image
        return _read(raster, path, window or (0, 0, raster.height, raster.width))


# -- geo.georeference
# Whether two rasters lie on the same ground.

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


# -- geo.surface
# Outlines of the road's pixels.

_PURPOSE = "road outlines"


def traced_areas(road: np.ndarray, row: int = 0, column: int = 0) -> list:
    """Return the outlines of the road pixels of a part of a raster, with holes, along the pixels' edges.

    Args:
        road: bool (h, w).
        row: of the part's first pixel.
        column: of the part's first pixel.

    Returns:
        shapely polygons in pixels: x the column and y the row, whole numbers at the pixels' corners. Pixels that touch
        at a corner only are in two polygons.
    """
    shapely = lazy_import("shapely", "geo", _PURPOSE)
    features = lazy_import("rasterio.features", "geo", _PURPOSE)
    place = rasterio_module(_PURPOSE).Affine.translation(column, row)
    found = features.shapes(road.astype(np.uint8), mask=road, connectivity=4, transform=place)
    return [shapely.Polygon(rings[0], rings[1:]) for rings in (shape["coordinates"] for shape, _ in found)]


def merged(areas: Sequence, tolerance: float) -> list:
    """Return one polygon for all of ``areas`` that share an edge, simplified.

    Args:
        areas: shapely polygons that do not overlap.
        tolerance: farthest that an outline may move, in their unit.
    """
    if not areas:
        return []
    shapely = lazy_import("shapely", "geo", _PURPOSE)
    whole = shapely.get_parts(shapely.disjoint_subset_union_all(np.array(areas, object)))
    corners = shapely.simplify(shapely.normalize(whole), 0)  # the same, of however many parts it was made
    return list(shapely.simplify(corners, tolerance, preserve_topology=True))
