"""Rasters of any format, depth, size and band count, read whole or by windows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from .raster import RasterInfo, Transform, Window, rasterio_module

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
