"""Rasters of any depth and band count, whole or by windows."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..errors import DataError, lazy_import

Window = tuple[int, int, int, int]
Transform = tuple[float, float, float, float, float, float]
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


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


def _open(path: str) -> object:
    rasterio = rasterio_module()
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise DataError(f"{path}: cannot be read as a raster ({error}); replace it or take it out") from None


def _colour_bands(raster: object) -> list[int]:
    """Return the numbers, from 1, of the bands that are no alpha."""
    alpha = lazy_import("rasterio.enums", "geo", "reading GeoTIFF").ColorInterp.alpha
    return [i for i, role in enumerate(raster.colorinterp, 1) if role != alpha]  # type: ignore[attr-defined]


def raster_info(path: str) -> RasterInfo:
    """Return what the header of the raster at ``path`` says.

    Raises:
        DataError: missing or unreadable.
        MissingExtraError: rasterio is not installed.
    """
    with _open(path) as raster:  # type: ignore[attr-defined]
        colour = _colour_bands(raster)
        transform = tuple(raster.transform)[:6]
        per_dataset = rasterio_module().enums.MaskFlags.per_dataset in raster.mask_flag_enums[0]
        return RasterInfo(
            path=path,
            height=raster.height,
            width=raster.width,
            bands=len(colour),
            dtype=raster.dtypes[0],
            has_alpha=len(colour) < raster.count or per_dataset,
            nodata=raster.nodata,
            crs=raster.crs.to_string() if raster.crs else None,
            transform=None if transform == _IDENTITY else transform,
        )


def read_raster(path: str, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values and the valid pixels of the raster at ``path``.

    Args:
        path: any file that GDAL reads.
        window: (row, column, height, width) of the part to read, in pixels; all of it when None.

    Returns:
        values (H, W, B) in the file's type, alpha left out, and valid (H, W) bool, None where every pixel is valid.
        A pixel is invalid where alpha is 0, where every band is nodata, or where a band is no number.

    Raises:
        DataError: missing, truncated or unreadable.
        MissingExtraError: rasterio is not installed.
    """
    rasterio = rasterio_module()
    with _open(path) as raster:  # type: ignore[attr-defined]
        part = None if window is None else rasterio.windows.Window(window[1], window[0], window[3], window[2])
        colour = _colour_bands(raster)
        try:
            values = np.ascontiguousarray(raster.read(colour, window=part).transpose(1, 2, 0))
            valid = None
            flags = raster.mask_flag_enums[0]
            if raster.count > len(colour) or rasterio.enums.MaskFlags.per_dataset in flags:
                valid = raster.dataset_mask(window=part) > 0
        except rasterio.errors.RasterioError:
            raise DataError(
                f"{path}: cannot be read to its end, it is truncated or damaged; replace it or take it out"
            ) from None
        nodata = raster.nodata
    if nodata is not None and not math.isnan(nodata):
        holds = (values != nodata).any(axis=2)
        valid = holds if valid is None else valid & holds
    if np.issubdtype(values.dtype, np.floating):
        finite = np.isfinite(values).all(axis=2)
        valid = finite if valid is None else valid & finite
    return values, None if valid is None or valid.all() else valid


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
