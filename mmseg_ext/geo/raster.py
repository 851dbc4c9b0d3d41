"""What a raster's header says, and writing small rasters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..errors import lazy_import

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
